"""The names that a deployment's form offers. They are read at import: Prefect makes the form of a flow's signature."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from config import paths
from config.params import load_params
from runtime.errors import UserError


def names_in(section: str) -> list[str]:
    """Return the names in a section of params.yaml; none if it has a fault, which the run itself reports."""
    try:
        return [*getattr(load_params(Path(__file__).parents[1] / paths.PARAMS), section)]
    except UserError:
        return []


if TYPE_CHECKING:
    Model = str
    DatasetName = str
    Searched = str
else:
    models, datasets, searches = names_in("models"), names_in("datasets"), names_in("search")
    Model = Literal[tuple(models)] if models else str
    DatasetName = Literal[tuple(datasets)] if datasets else str
    Searched = Literal[tuple(searches)] if searches else str
