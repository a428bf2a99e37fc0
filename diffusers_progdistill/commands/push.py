from dataclasses import dataclass
from pathlib import Path

from ..training.config import option
from .parsing import parse, split_target


DESCRIPTION = """Put the finished students of a chain on the Hub: one commit on main and a tag steps-N for each, and
the newest model card. What is there already is skipped, so this finishes what `distill --push_to_hub` could not, and
publishes chains that were trained without it.
usage: progdistill push OUTPUT_DIR [OPTIONS]; OUTPUT_DIR is that of `progdistill distill`."""


@dataclass
class PushConfig:
    """Options of `progdistill push`."""

    hub_model_id: str | None = option(
        None, "The repository, name or namespace/name. Default: that of the run, else the name of OUTPUT_DIR."
    )
    hub_private_repo: bool = option(False, "Make a new repository private.")
    hub_token: str | None = option(None, "Token with write rights; better given as HF_TOKEN.")
    hub_license: str | None = option(None, "The license that the model card states. Default: that of the run.")


def main(argv: list[str]) -> int:
    target, argv = split_target(argv)
    config = parse(PushConfig, argv, "progdistill push", DESCRIPTION)
    from ..families import open_model
    from ..hub.folder import publish_folder
    from ..hub.upload import open_repository
    from ..pipelines.source import ModelSource
    from ..record import list_students, only_process_in, read_finished

    folder = Path(target or "")
    content = read_finished(folder, target)
    for stage in list_students(content):
        # What no command could load is not given to others.
        open_model(ModelSource(str(folder / stage["name"]), "student"))
    hub = content.get("hub") or {}
    name = config.hub_model_id or hub.get("repo_id") or folder.resolve().name
    license = config.hub_license or hub.get("license", "unknown")
    hub = open_repository(name, config.hub_token, config.hub_private_repo, license)
    with only_process_in(folder):
        publish_folder(folder, content, hub, config.hub_token)
    return 0
