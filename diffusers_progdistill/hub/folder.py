"""A chain's output folder on the Hub: its students in order, each with a card, then the newest card."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from ..disk import put_in_place, replace_file, writing
from ..errors import PublishError
from ..record import list_students
from .model_card import PICTURES, is_untouched, make_card
from .publisher import Publisher
from .upload import PAUSES, describe, refresh_card, with_retries


class Publication:
    """
    Publishes the students of the chain in a folder as they are finished.

    Args:
        folder (`Path`): The output folder.
        content (`dict`): What its `chain.json` holds; it is read at each call, so it may grow.
        repo_id (`str`): Full name of the repository, see [`open_repository`].
        token (`str`, *optional*): Defaults to `HF_TOKEN` or the stored login.
        license (`str`): For the metadata of the cards.
        say (`Callable`, *optional*): Is given one line about each student published and each failure.
        pauses (`tuple[float, ...]`): Seconds between attempts.
    """

    def __init__(
        self, folder: Path, content: dict, repo_id: str, token=None, license="unknown", say=print, pauses=PAUSES
    ):
        self.folder, self.content, self.repo_id, self.license = folder, content, repo_id, license
        self.publisher = Publisher(folder, repo_id, token, say, pauses)
        self.seconds_in_calls = 0.0

    def add(self, name: str, steps: int):
        """Queue the student in `OUTPUT_DIR/name`; returns at once."""
        began = time.perf_counter()
        card = make_card(self.folder, self.content, steps, self.repo_id, self.license)
        pictures = [self.folder / p for p in PICTURES if (self.folder / p).exists()]
        self.publisher.add(self.folder / name, str(card), pictures)
        self.seconds_in_calls += time.perf_counter() - began

    def start(self):
        """Begin with what is in the queue."""
        self.publisher.start()

    def close(self, seconds_left: Callable[[], float | None] = lambda: None):
        """
        Wait for what is queued, as long as `seconds_left` says (`None`: without limit).

        Raises:
            [`PublishError`]: If a student is not on the Hub. It stays in the queue for `progdistill push`.
        """
        missing = self.publisher.close(seconds_left)
        if missing:
            reason = f" ({describe(self.publisher.error)})" if self.publisher.error else ""
            raise PublishError(
                f"not on the Hub: {', '.join(missing)}{reason}; `progdistill push {self.folder}` finishes it"
            )


def publish_folder(
    folder: Path,
    content: dict,
    repo_id: str,
    token: str | None = None,
    license: str = "unknown",
    say: Callable[[str], None] = print,
    pauses: tuple[float, ...] = PAUSES,
):
    """
    Publish every finished student of a folder that is not on the Hub yet, and then its newest card.

    Raises:
        [`PublishError`]: If something is not on the Hub in the end.
    """
    publication = Publication(folder, content, repo_id, token, license, say, pauses)
    for stage in list_students(content):
        publication.add(stage["name"], stage["num_inference_steps"])
    publication.start()
    publication.close()
    with TemporaryDirectory() as temporary:
        for name in (p for p in PICTURES if (folder / p).exists()):
            shutil.copyfile(folder / name, Path(temporary, name))
        Path(temporary, "README.md").write_text(str(make_card(folder, content, None, repo_id, license)))
        api = publication.publisher.api
        try:
            with_retries(lambda: refresh_card(api, repo_id, Path(temporary)), time.sleep, say, pauses)
        except Exception as error:
            raise PublishError(f"the model card is not on the Hub: {describe(error)}") from error


def write_card(folder: Path, content: dict) -> Path:
    """
    Write the card of a folder's last student as its README.md. One that this function did not write is kept under
    another name.
    """
    hub = content.get("hub") or {}
    text = str(make_card(folder, content, None, hub.get("repo_id"), hub.get("license", "unknown")))
    path = folder / "README.md"
    if path.exists() and not is_untouched(path.read_text(encoding="utf-8", errors="replace")):
        number = 1
        while (kept := folder / f"README.{number}.md").exists():
            number += 1
        with writing(kept):
            put_in_place(path, kept)
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path
