"""Files of unknown origin: nothing is read from outside their folder, and no code of theirs runs unasked."""

import json
from pathlib import Path

from .errors import InputError, describe_reason


# Pictures with more pixels than this are not decompressed: a few kilobytes can hold gigabytes.
MOST_PIXELS = 64_000_000


def leads_out(path: Path, root: Path) -> bool:
    """Whether a path below `root` ends up somewhere else, through links or dots."""
    return not path.resolve().is_relative_to(root.resolve())


def check_model_files(folder: Path, index: dict, flag: str, trust_remote_code: bool) -> None:
    """Refuse a pipeline folder, with this `model_index.json`, whose files lead out of it or that brings code."""
    root = folder.resolve()
    # In the Hub's cache every file of a snapshot is a link into the repository's blobs.
    blobs = root.parent.parent / "blobs"
    allowed = [root, blobs] if root.parent.name == "snapshots" and blobs.is_dir() else [root]
    for path in folder.rglob("*"):
        if all(leads_out(path, place) for place in allowed):
            raise InputError(f"{flag}: {path.relative_to(folder)} leads out of the folder; put the file itself there")
    for path in folder.rglob("*.index.json"):
        names = read_json(path, flag).get("weight_map")
        for name in set(names.values()) if isinstance(names, dict) else ():
            # Shards lie beside their index; a separator in a name can only lead elsewhere.
            if not isinstance(name, str) or {"/", "\\"} & set(name):
                raise InputError(f"{flag}: {path.relative_to(folder)} names {name}, which leads out of the folder")
    name = find_code(index, folder)
    if name and not trust_remote_code:
        raise InputError(f"{flag} would run code of its own ({name}); if you trust it, give --trust_remote_code")


def find_code(index: dict, folder: Path) -> str | None:
    """What of a pipeline is made by Python files in its folder, if anything is."""
    for name, value in index.items():
        place = Path() if name == "_class_name" else Path(name)
        if isinstance(value, list) and value and isinstance(value[0], str):
            file = place / f"{value[0]}.py"
            if (folder / file).exists():
                return str(file)
    return None


def read_json(path: Path, flag: str) -> dict:
    """The object in a JSON file."""
    try:
        # An editor may have marked the encoding.
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{flag}: {path.name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{flag}: {path.name} is not a JSON object ({describe_reason(error)})") from error
    if not isinstance(content, dict):
        raise InputError(f"{flag}: {path.name} is not a JSON object")
    return content
