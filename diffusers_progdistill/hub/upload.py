"""One student on the Hub: the rights, the commit and the tag. Each can be repeated without doing anything twice."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from ..errors import InputError, describe_reason
from .model_card import is_untouched


# Seconds between attempts; about four minutes in all. The client's own retries come on top, but it makes none for
# commits with large files nor for tags.
PAUSES = (1, 2, 4, 8, 16, 32, 60, 60, 60)
# The Hub may ask for longer pauses; this much is granted.
LONGEST_PAUSE = 300.0
PASSING_STATUSES = {408, 425, 429, 500, 502, 503, 504, 507, 520, 521, 522, 523, 524}


def causes(error: BaseException | None):
    """An exception and what it came from: the client wraps what happens to an upload in a `RuntimeError`."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def read_status(error: BaseException) -> int | None:
    """The HTTP status that is behind an error, if one is."""
    for cause in causes(error):
        response = getattr(cause, "response", None)
        if response is not None:
            return response.status_code
    return None


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help: 429, 5xx and broken connections; never 401, 403 or 404."""
    if isinstance(error, OfflineModeIsEnabled):
        return False
    status = read_status(error)
    if status is not None:
        return status in PASSING_STATUSES
    for cause in causes(error):
        # By name, since the client's HTTP library is httpx in some of its versions and httpx2 in others.
        if any(c.__name__ in ("TransportError", "StreamError") for c in type(cause).__mro__):
            return True
        if isinstance(cause, (ConnectionError, TimeoutError)):
            return True
    # The storage client raises plain RuntimeErrors of its own.
    return isinstance(error, RuntimeError)


def with_retries(
    function: Callable, sleep: Callable[[float], None], say: Callable[[str], None] = print, pauses=PAUSES
):
    """
    Call a function until it succeeds, with growing pauses, at most `len(pauses) + 1` times.

    Args:
        function (`Callable`): Takes no arguments; it must be safe to call again.
        sleep (`Callable`): Waits that many seconds; it may raise to give up.
        say (`Callable`): Is told in one line about each failure that is tried again.
        pauses (`tuple[float, ...]`): Seconds between attempts; a longer `Retry-After` of the Hub is respected.
    """

    def pause(state: RetryCallState) -> float:
        error = state.outcome.exception()
        asked = 0.0
        for cause in causes(error):
            headers = getattr(getattr(cause, "response", None), "headers", {})
            if (value := headers.get("Retry-After", "")).isdigit():
                asked = float(value)
        # It is asked after the last attempt too, when nobody waits any more.
        own = pauses[min(state.attempt_number, len(pauses)) - 1]
        return max(own, min(asked, LONGEST_PAUSE))

    def tell(state: RetryCallState):
        say(f"the Hub: {describe(state.outcome.exception())}; trying again in {state.upcoming_sleep:.0f} s")

    retrying = Retrying(
        stop=stop_after_attempt(len(pauses) + 1),
        wait=pause,
        retry=retry_if_exception(is_transient),
        sleep=sleep,
        before_sleep=tell,
        reraise=True,
    )
    return retrying(function)


def describe(error: BaseException) -> str:
    """An error in one line, without the addresses and identifiers that the client adds to it."""
    status = read_status(error)
    for cause in causes(error):
        if isinstance(cause, HfHubHTTPError):
            message = getattr(cause, "server_message", None) or str(cause).split("\n")[0]
            return f"{status}, {' '.join(message.split())}"
    root = list(causes(error))[-1] if status is None else error
    return f"{type(root).__name__}: {describe_reason(root)}"


def open_repository(
    model_id: str,
    token: str | None = None,
    private: bool | None = None,
    license: str = "unknown",
    say: Callable[[str], None] = print,
) -> str:
    """
    Make sure that a repository exists and that this token may write to it, before anything expensive is done.

    Args:
        model_id (`str`): `"name"` in the token's own namespace, or `"namespace/name"`.
        token (`str`, *optional*): Defaults to `HF_TOKEN` or the stored login.
        private (`bool`, *optional*): Whether a new repository is private.
        license (`str`): What the cards are to state; the Hub knows which ones there are.

    Returns:
        `str`: The repository's full name.

    Raises:
        [`InputError`]: If the name, the token or its rights are wrong, or the Hub cannot be reached.
    """
    api = HfApi(token=token)

    def create() -> str:
        repo_id = api.create_repo(model_id, private=private or None, exist_ok=True).repo_id
        # `exist_ok` succeeds on other people's repositories too.
        api.auth_check(repo_id, write=True)
        if private and not api.repo_info(repo_id).private:
            raise InputError(
                f"--hub_private_repo: {repo_id} exists and is public; make it private in its settings, or give another"
                " --hub_model_id"
            )
        return repo_id

    try:
        repo_id = with_retries(create, time.sleep, say, PAUSES[:5])
        with_retries(lambda: check_license(license), time.sleep, say, PAUSES[:5])
        return repo_id
    except InputError:
        raise
    except HFValidationError as error:
        raise InputError(f"--hub_model_id {model_id} is not a name on the Hub: {error}") from error
    except (HfHubHTTPError, OSError, RuntimeError) as error:
        status, reason = read_status(error), describe(error)
        if status == 401:
            raise InputError(
                f"--hub_token (or HF_TOKEN, or `hf auth login`) is missing or wrong: the Hub says {reason}"
            ) from error
        if status in (403, 404):
            raise InputError(
                f"--hub_model_id {model_id}: this token may not write there ({reason}); give a token with write"
                " rights, or another name"
            ) from error
        raise InputError(f"--push_to_hub: the Hub at {api.endpoint} does not answer: {reason}") from error


def check_license(license: str):
    """Have the Hub look at the metadata of a card, which it would otherwise refuse with the first student."""
    try:
        ModelCard(f"---\n{ModelCardData(license=license).to_yaml()}\n---\n").validate()
    except ValueError as error:
        reason = describe_reason(error)
        raise InputError(f"--hub_license {license} is not a license that the Hub knows: {reason}") from error


def digests(path: Path) -> set[str]:
    """The two names a file can have on the Hub: git's sha1 of it, and the sha256 of large files."""
    blob = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        while chunk := file.read(1 << 20):
            blob.update(chunk)
    return {blob.hexdigest(), sha256}


def is_there(api: HfApi, repo_id: str, revision: str, files: dict[str, set[str]]) -> bool:
    """Whether a revision holds exactly these contents under these paths."""
    found = {}
    for sibling in api.repo_info(repo_id, revision=revision, files_metadata=True).siblings:
        lfs = getattr(sibling.lfs, "sha256", None) or (sibling.lfs or {}).get("sha256")
        found[sibling.rfilename] = lfs or sibling.blob_id
    return all(found.get(path) in names for path, names in files.items())


def is_model_file(path: str) -> bool:
    """Whether a file of a student's commit is part of the model (the rest is its card and pictures)."""
    return "/" in path or path == "model_index.json"


def publish(api: HfApi, repo_id: str, folder: Path, tag: str) -> str:
    """
    Put a folder on `main` in one commit and tag that commit. What is there already is not done again, so this may be
    called as often as needed; a tag that points at another model is moved.

    Args:
        api ([`~huggingface_hub.HfApi`]): With the token.
        repo_id (`str`): Full name of the repository, which exists.
        folder (`Path`): All that the commit is to hold.
        tag (`str`): `"steps-N"`.

    Returns:
        `str`: The commit's id.
    """
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    files = {p.relative_to(folder).as_posix(): digests(p) for p in paths}
    model = {name: names for name, names in files.items() if is_model_file(name)}
    tags = {t.name: t.target_commit for t in api.list_repo_refs(repo_id).tags}
    if tag in tags and is_there(api, repo_id, tags[tag], model):
        return tags[tag]
    head = api.repo_info(repo_id).sha
    if not is_there(api, repo_id, head, files):
        operations = [CommitOperationAdd(name, folder / name) for name in files]
        operations += keep_edited_card(api, repo_id, head)
        head = api.create_commit(repo_id, operations, commit_message=f"Student of {tag.replace('-', ' ')}").oid
    if tag in tags:
        api.delete_tag(repo_id, tag=tag)
    api.create_tag(repo_id, tag=tag, revision=head)
    return head


def refresh_card(api: HfApi, repo_id: str, folder: Path):
    """Put a newer card and its pictures on `main`, if they differ."""
    files = {p.name: digests(p) for p in sorted(folder.iterdir()) if p.is_file() and not is_model_file(p.name)}
    if is_there(api, repo_id, "main", files):
        return
    operations = [CommitOperationAdd(name, folder / name) for name in files]
    operations += keep_edited_card(api, repo_id, api.repo_info(repo_id).sha)
    api.create_commit(repo_id, operations, commit_message="Update the model card")


def keep_edited_card(api: HfApi, repo_id: str, revision: str) -> list[CommitOperationAdd]:
    """What keeps a card that a person wrote or edited, under another name, in the commit that replaces it."""
    names = {sibling.rfilename for sibling in api.repo_info(repo_id, revision=revision).siblings}
    if "README.md" not in names:
        return []
    text = Path(api.hf_hub_download(repo_id, "README.md", revision=revision)).read_bytes()
    if is_untouched(text.decode("utf-8", errors="replace")):
        return []
    number = 1
    while f"README.{number}.md" in names:
        number += 1
    return [CommitOperationAdd(f"README.{number}.md", text)]
