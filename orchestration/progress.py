"""The progress of a run at the prompt: a live table on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestration.status import StageStatus
from runtime.progress_line import parse_progress

STYLES: dict[str, str] = {
    "ran": "green",
    "restored": "cyan",
    "unchanged": "dim",
    "failed": "bold red",
    "interrupted": "yellow",
    "not run": "yellow",
}
MAX_LINES = 12  # of a failed stage's output


@dataclass
class Row:
    """A stage that has started. epoch: its last progress line. lines: all that it printed."""

    began: float
    epoch: str = ""
    lines: list[str] = field(default_factory=list)


class Progress:
    """Prints a line when a stage starts, at its epochs and when it ends.

    unit: what is counted. quiet: print nothing when one starts and at its epochs. footer: further words on the whole.
    """

    def __init__(self, stages: int, unit: str = "stages", quiet: bool = False):
        self.stages, self.unit, self.quiet = stages, unit, quiet
        self.footer: Callable[[], str] = str
        self.began = time.monotonic()
        self.rows: dict[str, Row] = {}
        self.statuses: dict[str, StageStatus] = {}

    def started(self, stage: str) -> None:
        self.rows[stage] = Row(time.monotonic())
        self.show_in_lines(f"{stage} started")

    def line(self, stage: str, text: str) -> None:
        """Take a line that a stage printed."""
        row = self.rows.setdefault(stage, Row(time.monotonic()))
        row.lines.append(text)
        if progress := parse_progress(text):
            row.epoch = str(progress)
            self.show_in_lines(f"{stage} {progress}")

    def ended(self, stage: str, status: StageStatus) -> None:
        self.statuses[stage] = status
        if status == "unchanged":
            return
        row = self.rows.get(stage)
        taken = f" in {time.monotonic() - row.began:.1f} s" if row and status in ("ran", "failed") else ""
        self.show(f"{stage} {status}{taken}  [{len(self.statuses)}/{self.stages}]")
        if status == "failed" and row:
            for text in row.lines[-MAX_LINES:]:
                self.show(f"{stage} | {text}")

    def show(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def show_in_lines(self, text: str) -> None:
        """Show what the live table has in its rows anyway."""
        if not self.quiet:
            self.show(text)


class LiveProgress(Progress):
    """Redraws a table of the running stages; those that ended are printed above it."""

    def __init__(self, console: Console, stages: int, unit: str = "stages"):
        super().__init__(stages, unit)
        self.live = Live(console=console, get_renderable=self.table, refresh_per_second=4)

    def show_in_lines(self, text: str) -> None:
        pass

    def show(self, text: str) -> None:
        stage, _, rest = text.partition(" ")
        self.live.console.print(
            Text(stage, style=STYLES.get(self.statuses.get(stage, ""), "")), Text(rest), soft_wrap=True
        )

    def table(self) -> Table:
        now = time.monotonic()
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for stage, row in list(self.rows.items()):
            if stage not in self.statuses:
                table.add_row(Text(stage, style="bold"), f"{now - row.began:.0f} s", row.epoch)
        done = Text(f"{len(self.statuses)} of {self.stages} {self.unit}", style="dim")
        table.add_row(done, f"{now - self.began:.0f} s", self.footer())
        return table


@contextmanager
def show_progress(stages: int, unit: str = "stages", quiet: bool = False) -> Iterator[Progress]:
    """Yield the progress of a run of so many stages, live if standard error is a terminal; else see `Progress`."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Progress(stages, unit, quiet)
        return
    progress = LiveProgress(console, stages, unit)
    with progress.live:
        yield progress


def summary(statuses: dict[str, StageStatus], seconds: float) -> str:
    """Return one line: how many stages have each status, and how long the run took."""
    counts = {status: sum(value == status for value in statuses.values()) for status in STYLES}
    listed = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return f"{len(statuses)} stages: {listed}; {seconds:.1f} s"
