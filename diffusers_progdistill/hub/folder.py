"""A chain's output folder on the Hub: its students in order, each with its card, then the newest card."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.utils import disable_progress_bars

from ..disk import put_in_place, replace_file, writing
from ..errors import PublishError
from ..record import list_students
from .model_card import PICTURES, find_free_name, is_untouched, make_card
from .retries import RETRY_DELAYS, describe, is_transient, retry
from .upload import CARD_NAME, commit_files, publish_student


class Publication:
    """
    Publishes the students of a chain in a background thread, none before an earlier one: `main` is always the newest,
    and the commit log is the chain. A crash loses nothing: the folder's record says what is to be published.
    """

    def __init__(
        self,
        folder: Path,
        repo_id: str,
        token: str | None = None,
        log: Callable[[str], None] = print,
        retry_delays: tuple[float, ...] = RETRY_DELAYS,
    ) -> None:
        self.folder, self.repo_id, self.log, self.retry_delays = folder, repo_id, log, retry_delays
        self.api = HfApi(token=token)
        # The students that are not on the Hub yet, each with its card and the pictures of its time.
        self.waiting: dict[str, dict[str, bytes]] = {}
        self.error: Exception | None = None
        self._news, self._closing, self._giving_up = (threading.Event() for _ in range(3))
        disable_progress_bars()
        # Not the client's own `run_as_future`: Python would wait at its end for an upload that was given up.
        self._thread = threading.Thread(target=self._work, name="publication", daemon=True)
        self._thread.start()

    def add(self, name: str, card: str) -> None:
        """Publish the finished student in `OUTPUT_DIR/name`, which is not written to again. Returns at once."""
        self.waiting[name] = read_card_files(self.folder, card)
        self._news.set()

    def close(self, seconds_left: Callable[[], float | None] = lambda: None) -> None:
        """Wait for the Hub while there are `seconds_left`; raise [`PublishError`] if a student is missing then."""
        self._closing.set()
        self._news.set()
        # In small portions, so that a signal that comes meanwhile is seen.
        while self._thread.is_alive() and seconds_left() != 0:
            self._thread.join(0.1)
        self._giving_up.set()
        if missing := list(self.waiting):
            reason = f" ({describe(self.error)})" if self.error else ""
            raise PublishError(
                f"not on the Hub: {', '.join(missing)}{reason}; `progdistill push {self.folder}` finishes it"
            )

    def _work(self) -> None:
        """Publish what is waiting whenever there is news, and once more in the end."""
        is_last = False
        while not is_last and (self.error is None or is_transient(self.error)):
            self._news.wait()
            self._news.clear()
            is_last = self._closing.is_set()
            self._publish_waiting()

    def _publish_waiting(self) -> None:
        """Publish in order; stop at the first student that fails."""
        for name, files in list(self.waiting.items()):
            publish = partial(publish_student, self.api, self.repo_id, self.folder / name, files)
            try:
                retry(publish, self.log, self.retry_delays, self._giving_up.wait)
            except Exception as error:
                self.error = error
                if not self._giving_up.is_set():
                    self.log(f"{name} is not on the Hub: {describe(error)}")
                return
            self.error = None
            del self.waiting[name]
            self.log(f"{name} is on the Hub: {self.api.endpoint}/{self.repo_id}/tree/{name}")


def read_card_files(folder: Path, card: str) -> dict[str, bytes]:
    """A card and the pictures beside it as they are now, which later students change."""
    pictures = {name: (folder / name).read_bytes() for name in PICTURES if (folder / name).exists()}
    return {CARD_NAME: card.encode(), **pictures}


def publish_folder(
    folder: Path,
    content: dict,
    hub: dict[str, str],
    token: str | None = None,
    log: Callable[[str], None] = print,
    retry_delays: tuple[float, ...] = RETRY_DELAYS,
) -> None:
    """Publish every student in a folder's record that is not on the Hub yet, then its newest card."""
    publication = Publication(folder, hub["repo_id"], token, log, retry_delays)
    for stage in list_students(content):
        publication.add(stage["name"], str(make_card(folder, content, stage["num_inference_steps"], **hub)))
    publication.close()
    newest = read_card_files(folder, str(make_card(folder, content, **hub)))
    commit = partial(commit_files, publication.api, hub["repo_id"], newest, "Update the model card")
    try:
        retry(commit, log, retry_delays)
    except Exception as error:
        raise PublishError(f"the model card is not on the Hub: {describe(error)}") from error


def write_card(folder: Path, content: dict, steps: int | None = None) -> str:
    """Write and return the card of a student, by default the last; one that a person edited is kept."""
    text = str(make_card(folder, content, steps, **content.get("hub", {})))
    path = folder / CARD_NAME
    if path.exists() and not is_untouched(path.read_text(encoding="utf-8", errors="replace")):
        kept = folder / find_free_name({p.name for p in folder.iterdir()})
        with writing(kept):
            put_in_place(path, kept)
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return text
