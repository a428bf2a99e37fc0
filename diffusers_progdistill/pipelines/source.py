"""Where a model comes from: a pipeline's folder, found or downloaded, in which nothing runs unless it is trusted."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diffusers import DiffusionPipeline
from huggingface_hub import HfApi, hf_hub_download

from ..errors import InputError, describe_reason
from ..trust import check_model_files, read_json


INDEX_NAME = "model_index.json"


@dataclass(frozen=True)
class ModelSource:
    """
    Where a model comes from, and how far it is trusted.

    Attributes:
        name (`str`): A diffusers pipeline folder, or a name on the Hub.
        flag (`str`): What a message calls it, for example the option that named it.
        cache_dir, token, revision, variant, trust_remote_code (*optional*): As [`~DiffusionPipeline.from_pretrained`].
    """

    name: str
    flag: str = "model"
    cache_dir: str | None = None
    token: str | None = None
    revision: str | None = None
    variant: str | None = None
    trust_remote_code: bool = False

    @property
    def what(self) -> str:
        """What a message calls the model."""
        return f"{self.flag} {self.name}" if self.flag else self.name

    @property
    def place(self) -> dict:
        """Where on the Hub, and in its cache, as the options of a download."""
        return {"revision": self.revision, "cache_dir": self.cache_dir, "token": self.token}

    def find_file(self, name: str) -> Path:
        """A file in the folder, which need not be there, or one that is downloaded from the Hub."""
        folder = Path(self.name)
        return folder / name if folder.is_dir() else Path(hf_hub_download(self.name, name, **self.place))

    def list_names(self, folder: str) -> list[str]:
        """The names of a component's files on the Hub, as far as they can be asked for."""
        if os.path.isdir(self.name):
            return []
        try:
            paths = HfApi(token=self.token).list_repo_files(self.name, revision=self.revision)
        except Exception:  # only a hint depends on it
            return []
        return [Path(path).name for path in paths if Path(path).parent.name in ("", folder)]


class AnyPipeline(DiffusionPipeline):
    """Downloads what an index names, of a class that diffusers need not know."""


def open_folder(source: ModelSource, check_index: Callable[[dict, str], None]) -> tuple[Path, dict]:
    """
    The local folder of a pipeline and its index, which `check_index(index, what)` may refuse. One on the Hub is
    downloaded after that.
    """
    folder, what = Path(source.name), source.what
    if folder.is_file():
        raise InputError(f"{what} is a file: give a diffusers pipeline folder, or a name on the Hub")
    if not folder.is_dir():
        if os.path.isabs(source.name) or source.name.startswith((".", "~")) or source.name.count("/") != 1:
            raise InputError(f"{what} is not a folder: give a diffusers pipeline folder")
        options = {**source.place, "variant": source.variant, "trust_remote_code": source.trust_remote_code}
        try:
            check_index(read_json(source.find_file(INDEX_NAME), what), what)
            folder = Path(AnyPipeline.download(source.name, **options))
        except InputError:
            raise
        except Exception as error:  # diffusers and the Hub client raise many kinds for what is one thing to a user
            raise InputError(f"{what} cannot be loaded from the Hub: {describe_reason(error)}") from error
    elif not (folder / INDEX_NAME).exists():
        raise InputError(f"{what} has no {INDEX_NAME}: give a diffusers pipeline folder")
    index = read_json(folder / INDEX_NAME, what)
    check_model_files(folder, index, what, source.trust_remote_code)
    check_index(index, what)
    return folder, index


def find_place(folder: Path, name: str, config_name: str = "config.json") -> Path:
    """The folder of a component. In checkpoints of 2022 it may be the pipeline's own."""
    return folder / name if (folder / name).is_dir() or not (folder / config_name).exists() else folder
