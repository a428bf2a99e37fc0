"""One student on the Hub: the rights, the commit and the tag. Each can be repeated without doing anything twice."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from ..errors import InputError, describe_reason
from .model_card import find_free_name, is_untouched
from .retries import RETRY_DELAYS, describe, find_response, retry


CARD_NAME = "README.md"
LARGE_FILES = (".safetensors", ".png")


def open_repository(model_id: str, token: str | None, private: bool | None, license: str) -> dict[str, str]:
    """
    Make sure that a repository exists and that this token may write to it, before anything expensive is done. Returns
    what the record of a chain keeps: its full name and the license.
    """
    api = HfApi(token=token)

    def create() -> dict[str, str]:
        repo_id = api.create_repo(model_id, private=private or None, exist_ok=True).repo_id
        # `exist_ok` succeeds on other people's repositories too.
        api.auth_check(repo_id, write=True)
        check_license(license)
        if private and not api.repo_info(repo_id).private:
            raise InputError(
                f"--hub_private_repo: {repo_id} exists and is public; make it private in its settings, or give another"
                " --hub_model_id"
            )
        return {"repo_id": repo_id, "license": license}

    try:
        return retry(create, retry_delays=RETRY_DELAYS[:5])
    except HFValidationError as error:
        raise InputError(f"--hub_model_id {model_id} is not a name on the Hub: {error}") from error
    except (HfHubHTTPError, OSError, RuntimeError) as error:
        status, reason = getattr(find_response(error), "status_code", None), describe(error)
        message = f"--push_to_hub: the Hub at {api.endpoint} does not answer: {reason}"
        if status == 401:
            message = f"--hub_token (or HF_TOKEN, or `hf auth login`) is missing or wrong: the Hub says {reason}"
        elif status in (403, 404):
            message = (
                f"--hub_model_id {model_id}: this token may not write there ({reason}); give a token with write"
                " rights, or another name"
            )
        raise InputError(message) from error


def check_license(license: str) -> None:
    """Have the Hub look at the metadata of a card, which it would otherwise refuse with the first student."""
    try:
        ModelCard(f"---\n{ModelCardData(license=license).to_yaml()}\n---\n").validate()
    except ValueError as error:
        raise InputError(
            f"--hub_license {license} is not a license that the Hub knows: {describe_reason(error)}"
        ) from error


def publish_student(api: HfApi, repo_id: str, folder: Path, card_files: dict[str, bytes]) -> None:
    """Put a student on `main` in one commit that gets its name as a tag, unless the tag holds it already."""
    tag = folder.name
    tags = {t.name for t in api.list_repo_refs(repo_id).tags}
    if tag in tags:
        found = api.verify_repo_checksums(repo_id, revision=tag, local_dir=folder)
        if not found.mismatches and not found.extra_paths:
            return
    model_files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    commit = commit_files(api, repo_id, {**model_files, **card_files}, f"Student of {tag.replace('-', ' ')}")
    if tag in tags:
        api.delete_tag(repo_id, tag=tag)
    api.create_tag(repo_id, tag=tag, revision=commit)


def commit_files(api: HfApi, repo_id: str, files: dict[str, Path | bytes], message: str) -> str:
    """Add files to `main` in one commit, unless they are there, and return the newest; a person's card is kept."""
    additions = [CommitOperationAdd(name, content) for name, content in files.items()]
    head = api.repo_info(repo_id)
    names = {sibling.rfilename for sibling in head.siblings}
    if CARD_NAME in names:
        text = Path(api.hf_hub_download(repo_id, CARD_NAME, revision=head.sha)).read_bytes()
        if not is_untouched(text.decode("utf-8", errors="replace")):
            additions.append(CommitOperationAdd(find_free_name(names), text))
    for addition in additions:
        if addition.path_in_repo.endswith(LARGE_FILES):
            # One by one, since the client sends several in threads for which Python would wait at its end.
            api.preupload_lfs_files(repo_id, [addition])
    return api.create_commit(repo_id, additions, commit_message=message).oid
