"""The data sets: one file each, found by its name.

The file of a data set defines `DATASET`, a `datasets.dataset.Dataset`: the source of the rows, their schema and
classes, the checksum of the real rows, and the generator of the built-in sample.
"""

from importlib import import_module
from pkgutil import iter_modules

from datasets.dataset import Dataset
from runtime.errors import UserError, unknown_name


def dataset_names() -> list[str]:
    return sorted(module.name for module in iter_modules(__path__) if module.name != "dataset")


def get_dataset(name: str) -> Dataset:
    """Return a data set; raises UserError where the name is unknown, or its file contradicts itself."""
    if name not in dataset_names():
        raise unknown_name("dataset", name, dataset_names(), "The data sets of datasets/")
    dataset = getattr(import_module(f"datasets.{name}"), "DATASET", None)
    wrong = what_is_wrong(name, dataset)
    if wrong or dataset is None:
        raise UserError(f"datasets/{name}.py: {wrong}. Mend it there and run again.")
    return dataset


def what_is_wrong(name: str, dataset: Dataset | None) -> str:
    """Return in words how the file of a data set contradicts itself; "" where it does not."""
    if not isinstance(dataset, Dataset):
        return "it defines no DATASET, a datasets.dataset.Dataset"
    if dataset.name != name:
        return f"DATASET has the name {dataset.name!r}, the file {name!r}"
    columns = dataset.schema.names
    named = {
        "features": dataset.features,
        "target": (dataset.target,),
        "place": dataset.place or (),
        **{f"derived[{key!r}]": derived.columns for key, derived in dataset.derived.items()},
    }
    for where, names in named.items():
        for column in names:
            if column not in columns:
                return f"{where} names {column!r}; `schema` has {', '.join(columns)}"
    if not dataset.features:
        return "features is empty"
    if dataset.class_names is not None and len(dataset.class_names) < 2:
        return f"class_names has {len(dataset.class_names)} class, and two are the least"
    return ""
