"""Files of unknown origin: nothing is read from outside their folder, and no code of theirs runs unasked."""

import json
from pathlib import Path

from .errors import InputError


# Pictures with more pixels than this are not decompressed: a few kilobytes can hold gigabytes.
MOST_PIXELS = 64_000_000


def leads_out(path: Path, root: Path) -> bool:
    """Whether a path below `root` ends up somewhere else, through links or dots."""
    return not path.resolve().is_relative_to(root.resolve())


def check_model_files(folder: Path, flag: str, trust_remote_code: bool):
    """
    Refuse a pipeline folder whose files lead out of it, or that brings code of its own.

    Args:
        folder (`Path`): The pipeline folder.
        flag (`str`): What a message calls it.
        trust_remote_code (`bool`): Whether its code may run.

    Raises:
        [`InputError`]: With the file and the reason.
    """
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
    index = read_json(folder / "model_index.json", flag)
    if not trust_remote_code and (name := find_code(index, folder)):
        raise InputError(f"{flag} would run code of its own ({name}); if you trust it, give --trust_remote_code")


def find_code(index: dict, folder: Path) -> str | None:
    """What of a pipeline is made by Python files in its folder, if anything is."""
    for name, value in index.items():
        library = value[0] if isinstance(value, list) and value else None
        if not isinstance(library, str):
            continue
        file = folder / f"{library}.py" if name == "_class_name" else folder / name / f"{library}.py"
        if file.exists():
            return str(file.relative_to(folder))
    return None


def read_json(path: Path, flag: str) -> dict:
    """The object in a JSON file."""
    where = ""
    try:
        # An editor may have marked the encoding.
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(content, dict):
            return content
    except OSError as error:
        where = f" ({error.strerror})"
    except json.JSONDecodeError as error:
        where = f" (line {error.lineno})"
    except UnicodeDecodeError:
        where = " (not UTF-8)"
    except (ValueError, RecursionError):
        pass
    raise InputError(f"{flag}: {path.name} is not a JSON object{where}")
