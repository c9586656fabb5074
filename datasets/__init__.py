"""The data sets: one file each, found by its name.

A file of this folder defines `DATASET`, a `datasets.dataset.Dataset`: where the rows come from, their
schema and classes, the checksum of the real rows, and how to generate the built-in sample.
"""

from importlib import import_module
from pkgutil import iter_modules

from config.errors import unknown_name
from datasets.dataset import Dataset


def dataset_names() -> list[str]:
    return sorted(module.name for module in iter_modules(__path__) if module.name != "dataset")


def get_dataset(name: str) -> Dataset:
    """Return the data set `name`; raises UserError with the valid names."""
    if name not in dataset_names():
        raise unknown_name("dataset", name, dataset_names(), "The data sets of datasets/")
    return import_module(f"datasets.{name}").DATASET
