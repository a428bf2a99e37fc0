"""Data sets of the Hub, as `datasets` loads them."""

from pathlib import Path

from ..errors import InputError
from .found import Found
from .notices import named, notice
from .splits import canonical
from .tables import found_in_table, quiet_datasets, reason_of


def find_on_hub(config, flag: str) -> Found:
    """
    The images of a data set on the Hub.

    Raises:
        [`InputError`]: If there is none, or it has no such split or column.
    """
    import datasets

    options = {"cache_dir": config.cache_dir, "token": config.hub_token}
    try:
        with quiet_datasets():
            splits = datasets.load_dataset(config.dataset_name, config.dataset_config_name, **options)
    except Exception as error:  # `datasets` raises a dozen kinds for what is one thing to a user
        raise InputError(f"{flag} cannot be loaded as a data set of images: {reason_of(error)}") from error
    there = [str(name) for name in splits]
    wanted = canonical(config.train_split, there)
    if config.train_split is None and len(there) == 1:
        wanted = there[0]
    if wanted not in there:
        option = f"--train_split {config.train_split} is not a split of {flag}"
        option = option if config.train_split else f"{flag} has no split train"
        raise InputError(f"{option}: give --train_split with one of its splits ({', '.join(there)})")
    if others := [f"{name} ({len(splits[name]):,} images)" for name in there if name != wanted]:
        notice(f"{flag}: the split {wanted} is used; left out: {named(others, 5)}")
    return found_in_table(splits[wanted], config, flag, caches(config, datasets))


def caches(config, datasets) -> list[Path]:
    """Where the libraries keep what they download; each may lie elsewhere (`HF_HOME`, `HF_HUB_CACHE`, ...)."""
    from huggingface_hub import constants

    known = [config.cache_dir, constants.HF_HUB_CACHE, constants.HF_HOME]
    names = ("HF_CACHE_HOME", "HF_DATASETS_CACHE", "DOWNLOADED_DATASETS_PATH", "EXTRACTED_DATASETS_PATH")
    known += [getattr(datasets.config, name, None) for name in names]
    return [Path(place) for place in known if place is not None]
