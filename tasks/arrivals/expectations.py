"""What the rows of a batch must be like: data/expectations/D.yaml."""

import pyarrow as pa

from datasets.dataset import Dataset
from tasks.arrivals.failures import Failure


class Expectations:
    """The expectations of one data set."""


def read_expectations(dataset: Dataset) -> Expectations | None:  # noqa: ARG001
    """Return the expectations of a data set; None where it has none."""
    return None


def check_batch(dataset: Dataset, table: pa.Table, expectations: Expectations) -> list[Failure]:  # noqa: ARG001
    """Return what of `table` breaks the expectations.

    Args:
        dataset: whose rows they are.
        table: the rows of a batch.
        expectations: that they must meet.
    """
    return []
