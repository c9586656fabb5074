"""How far a prediction is: a line that changes on a terminal, or a line every ten seconds."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live

LOG_SECONDS = 10
MOST_REASONS = 3  # that the last line names


@dataclass
class Done:
    """What is done.

    rows: predicted and rejected ones. resumed: those of them that an earlier run has done. share: of the input,
    `resumed_share` by an earlier run. unreadable: damaged files. reasons: how often each stands against a row.
    """

    predicted: int = 0
    rejected: int = 0
    resumed: int = 0
    unreadable: int = 0
    share: float = 0
    resumed_share: float = 0
    reasons: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    @property
    def rows(self) -> int:
        return self.predicted + self.rejected

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def rows_per_second(self) -> float:
        return (self.rows - self.resumed) / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        now = self.share - self.resumed_share
        left = f", {self.seconds * (1 - self.share) / now:.0f} s left" if now > 0 else ""
        rejected = f", {self.rejected:,} rejected" if self.rejected else ""
        return f"{self.rows:,} rows ({self.share:.0%}), {self.rows_per_second:,.0f} rows/s{left}{rejected}"


Report = Callable[[Done], None]


@contextmanager
def reporting(tell: Callable[[str], None]) -> Iterator[Report]:
    """Yield what reports how far a prediction is: on a terminal by a line that changes, elsewhere by `tell`."""
    if not sys.stderr.isatty():
        yield every(LOG_SECONDS, tell)
        return
    with ExitStack() as stack:
        live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True)

        def report(done: Done) -> None:
            if not live.is_started:  # not while TensorFlow is imported, which needs the terminal for itself
                stack.enter_context(live)
            live.update(str(done))

        yield report


def every(seconds: float, tell: Callable[[str], None]) -> Report:
    """Return a report that tells at most once in some seconds."""
    last = time.monotonic()

    def report(done: Done) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            tell(str(done))

    return report


def summary(done: Done, output: Path, rejected: Path) -> str:
    """Return in words what was done.

    Args:
        done: it.
        output: the file of predictions.
        rejected: the file of rejected rows, if there are any.
    """
    rows = f"{done.predicted:,} of {done.rows:,} rows" if done.rejected else f"{done.rows:,} rows"
    text = f"predicted {rows} in {done.seconds:.1f} s: {output}."
    if not done.reasons:
        return text
    reasons = [f"{reason} ({count:,})" for reason, count in done.reasons.most_common(MOST_REASONS)]
    more = len(done.reasons) - len(reasons)
    files = f" {done.unreadable:,} {'file' if done.unreadable == 1 else 'files'} could not be read to the end."
    return (
        f"{text} {done.rejected:,} rejected: {'; '.join(reasons)}{f'; and {more} other reasons' if more else ''}. "
        f"See {rejected}.{files if done.unreadable else ''}"
    )
