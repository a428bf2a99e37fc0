"""Students go to the Hub in a background thread, from a queue that is a folder: a crash loses nothing."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.utils import disable_progress_bars

from ..disk import put_in_place, writing
from .upload import PAUSES, describe, is_transient, publish, with_retries


QUEUE_NAME = "push-queue"


class GivenUp(Exception):
    """The publisher was told to stop while it waited to try again."""


def link_or_copy(source: Path, target: Path):
    """The same content under a second name, without its bytes twice where the file system can do that."""
    try:
        os.link(source, target)
    except OSError:
        # The content alone: shares may refuse to set times and rights.
        shutil.copyfile(source, target)


class Publisher:
    """
    Publishes the students of one chain to one repository, in the order of the chain.

    Each entry of the queue is a folder `OUTPUT_DIR/push-queue/steps-N` that holds exactly what the commit will hold.
    It is removed when the commit and its tag are on the Hub. A student is never published before an earlier one that
    is still missing, so that `main` is always the newest and the commit log is the chain.

    Args:
        folder (`Path`): The chain's output folder.
        repo_id (`str`): Full name of the repository, see [`open_repository`].
        token (`str`, *optional*): Defaults to `HF_TOKEN` or the stored login.
        say (`Callable`, *optional*): Is given one line about each student published and each failure.
        pauses (`tuple[float, ...]`): Seconds between attempts.
    """

    def __init__(
        self,
        folder: Path,
        repo_id: str,
        token: str | None = None,
        say: Callable[[str], None] = print,
        pauses: tuple[float, ...] = PAUSES,
    ):
        self.queue, self.repo_id, self.say, self.pauses = folder / QUEUE_NAME, repo_id, say, pauses
        self.api = HfApi(token=token)
        self.error: BaseException | None = None
        self._changed, self._giving_up = threading.Condition(), threading.Event()
        self._news, self._closing, self._refused = True, False, False
        # An entry that is on its way into the queue: where folders cannot be renamed, it is not whole yet.
        self._coming: str | None = None
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)

    def start(self):
        """Begin with what is in the queue."""
        disable_progress_bars()
        self._thread.start()

    def waiting(self) -> list[str]:
        """Names of the students in the queue, in the order of the chain."""
        names = [p.name for p in self.queue.glob("steps-*")] if self.queue.is_dir() else []
        names = [name for name in names if name != self._coming]
        return sorted(names, key=lambda name: -int(name.removeprefix("steps-")))

    def add(self, student: Path, card: str, pictures: list[Path] = ()):
        """
        Queue a finished student. Returns at once. One that is in the queue already stays as it is, since it may be
        under way; before [`Publisher.start`] nothing is, and it is made afresh.

        Args:
            student (`Path`): Its folder, `OUTPUT_DIR/steps-N`, which is not written to again.
            card (`str`): The README.md of its commit.
            pictures (`list[Path]`): Pictures of the card. They are copied as they are now.
        """
        entry, temporary = self.queue / student.name, self.queue / f".{student.name}.tmp"
        if entry.exists() and self._thread.is_alive():
            return
        with writing(entry, temporary):
            self._fill(temporary, student, card, pictures)
            with self._changed:
                shutil.rmtree(entry, ignore_errors=True)
                self._coming = entry.name
                try:
                    put_in_place(temporary, entry)
                finally:
                    self._coming = None
                self._news = True
                self._changed.notify()

    @staticmethod
    def _fill(temporary: Path, student: Path, card: str, pictures: list[Path]):
        shutil.rmtree(temporary, ignore_errors=True)
        for source in (p for p in student.rglob("*") if p.is_file()):
            target = temporary / source.relative_to(student)
            target.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(source, target)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        for picture in pictures:
            shutil.copyfile(picture, temporary / picture.name)

    def close(self, seconds_left: Callable[[], float | None] = lambda: None) -> list[str]:
        """
        Wait until the queue is empty or what is left cannot be published.

        Args:
            seconds_left (`Callable`, *optional*): Asked again and again for the seconds to wait at most, `None` for no
                limit; an upload that is under way in the end is left behind.

        Returns:
            `list[str]`: Names of the students that are not on the Hub. They stay in the queue.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        while self._thread.is_alive() and seconds_left() != 0:
            # In small portions, so that a signal that comes meanwhile is seen.
            self._thread.join(0.1)
        self._giving_up.set()
        missing = self.waiting()
        if not missing and self.queue.is_dir():
            shutil.rmtree(self.queue, ignore_errors=True)
        return missing

    def _work(self):
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._news or self._closing)
                last_round, self._news = self._closing, False
            try:
                self._empty_queue()
            except GivenUp:
                return
            if last_round:
                return

    def _empty_queue(self):
        """Publish what is waiting, oldest first; stop at the first that fails, since the order is the chain's."""
        while not self._refused and (waiting := self.waiting()):
            entry = self.queue / waiting[0]
            try:
                with_retries(
                    lambda entry=entry: publish(self.api, self.repo_id, entry, entry.name),
                    self._sleep,
                    self.say,
                    self.pauses,
                )
                self._take_out(entry)
            except GivenUp:
                raise
            except Exception as error:
                self.error, self._refused = error, not is_transient(error)
                self.say(f"{entry.name} is not on the Hub: {describe(error)}")
                return
            self.say(f"{entry.name} is on the Hub: {self.api.endpoint}/{self.repo_id}/tree/{entry.name}")
            self.error = None

    def _take_out(self, entry: Path):
        """A queue entry leaves in one step; what remains of it after a crash is no entry."""
        done = entry.with_name(f".{entry.name}.done")
        with self._changed:
            shutil.rmtree(done, ignore_errors=True)
            try:
                os.replace(entry, done)
            except OSError:
                # Where folders cannot be renamed, a rest of one is published once more, which changes nothing.
                done = entry
        shutil.rmtree(done, ignore_errors=True)

    def _sleep(self, seconds: float):
        if self._giving_up.wait(seconds):
            raise GivenUp
