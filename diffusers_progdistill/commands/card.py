from dataclasses import dataclass
from pathlib import Path

from .parsing import parse, split_target


DESCRIPTION = """Write the model card of a chain, OUTPUT_DIR/README.md, afresh from its chain.json and evaluation.json.
A README.md that was edited since is kept as README.1.md. `progdistill push` puts the newest card on the Hub.
usage: progdistill card OUTPUT_DIR; OUTPUT_DIR is that of `progdistill distill`."""


@dataclass
class CardConfig:
    """`progdistill card` has no options."""


def main(argv: list[str]) -> int:
    target, argv = split_target(argv)
    parse(CardConfig, argv, "progdistill card", DESCRIPTION)
    from ..hub.folder import write_card
    from ..record import read_finished

    folder = Path(target or "")
    write_card(folder, read_finished(folder, target))
    print(f"wrote {folder / 'README.md'}")
    return 0
