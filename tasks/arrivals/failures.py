"""Why an arrival is unsound: a bounded list of reasons, and the table of them for the user."""

import csv
import io
from collections.abc import Iterable
from typing import NamedTuple

from runtime.errors import shortened

MAX_REASONS = 1000  # that are kept of one arrival; the rest is counted


class Failure(NamedTuple):
    """One reason against an arrival.

    row: its position in the table, from 0; None: the whole file. column: None: all columns. value: that was found, as
    text.
    """

    row: int | None
    column: str | None
    value: str
    reason: str


class Reasons:
    """The first failures of an arrival, and how many there are."""

    def __init__(self) -> None:
        self.kept: list[Failure] = []
        self.count = 0

    def add(self, failures: Iterable[Failure], count: int | None = None) -> None:
        """Add failures. count: how many they stand for; None: each stands for itself."""
        given = list(failures)
        self.kept += given[: MAX_REASONS - len(self.kept)]
        self.count += len(given) if count is None else count

    def refuse(self, reason: str, column: str | None = None) -> None:
        """Add a reason against the whole file, or a whole column."""
        self.add([Failure(None, column, "", reason)])

    def first(self) -> str:
        """Return the first failure in words, and how many more there are."""
        failure = self.kept[0]
        where = [f"row {failure.row + 1}"] if failure.row is not None else []
        where += [f"column {failure.column!r}"] if failure.column else []
        value = [f"{shortened(repr(failure.value))} "] if failure.value else []
        more = f" (and {self.count - 1:,} more)" if self.count > 1 else ""
        return f"{', '.join(where)}{': ' if where else ''}{''.join(value)}{failure.reason}{more}"

    def table(self) -> str:
        """Return the failures as CSV with the columns row, column, value, reason; the first row of data is row 1."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Failure._fields)
        for row, column, value, reason in self.kept:
            writer.writerow(["" if row is None else row + 1, column or "", shortened(value), reason])
        if self.count > len(self.kept):
            writer.writerow(["", "", "", f"and {self.count - len(self.kept)} more"])
        return text.getvalue()
