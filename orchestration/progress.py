"""What the person at the prompt sees of a run: a live table on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestration.scheduler import Ending
from runtime.progress_line import parse_progress

STYLES = {
    "ran": "green",
    "restored": "cyan",
    "unchanged": "dim",
    "failed": "bold red",
    "interrupted": "yellow",
    "not run": "yellow",
}
SHOWN_LINES = 12  # of what a failed stage printed


@dataclass
class Row:
    """A stage that has started."""

    began: float
    epoch: str = ""
    lines: list[str] = field(default_factory=list)


class Progress:
    """Tells of each stage when it starts, what it prints, and how it ended. It prints lines."""

    def __init__(self, stages: int):
        self.stages = stages
        self.began = time.monotonic()
        self.rows: dict[str, Row] = {}
        self.endings: dict[str, Ending] = {}

    def started(self, stage: str) -> None:
        self.rows[stage] = Row(time.monotonic())
        self.mention(f"{stage} started")

    def line(self, stage: str, text: str) -> None:
        row = self.rows.setdefault(stage, Row(time.monotonic()))
        row.lines.append(text)
        if progress := parse_progress(text):
            row.epoch = str(progress)
            self.mention(f"{stage} {progress}")

    def ended(self, stage: str, ending: Ending) -> None:
        self.endings[stage] = ending
        if ending == "unchanged":
            return
        row = self.rows.get(stage)
        taken = f" in {time.monotonic() - row.began:.1f} s" if row and ending in ("ran", "failed") else ""
        self.tell(f"{stage} {ending}{taken}  [{len(self.endings)}/{self.stages}]")
        if ending == "failed" and row:
            for text in row.lines[-SHOWN_LINES:]:
                self.tell(f"{stage} | {text}")

    def tell(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def mention(self, text: str) -> None:
        """Tell what the live table shows anyway."""
        self.tell(text)


class LiveProgress(Progress):
    """The same as a table that is redrawn: the running stages, and above it those that ended."""

    def __init__(self, stages: int, console: Console):
        super().__init__(stages)
        self.live = Live(console=console, get_renderable=self.table, refresh_per_second=4)

    def mention(self, text: str) -> None:
        pass

    def tell(self, text: str) -> None:
        stage, _, rest = text.partition(" ")
        self.live.console.print(
            Text(stage, style=STYLES.get(self.endings.get(stage, ""), "")), Text(rest), soft_wrap=True
        )

    def table(self) -> Table:
        now = time.monotonic()
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for stage, row in list(self.rows.items()):
            if stage not in self.endings:
                table.add_row(Text(stage, style="bold"), f"{now - row.began:.0f} s", row.epoch)
        table.add_row(
            Text(f"{len(self.endings)} of {self.stages} stages", style="dim"), f"{now - self.began:.0f} s", ""
        )
        return table


@contextmanager
def show_progress(stages: int) -> Iterator[Progress]:
    """Yield what to tell of a run of so many stages: to the terminal if there is one."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Progress(stages)
        return
    shown = LiveProgress(stages, console)
    with shown.live:
        yield shown


def summary(endings: dict[str, Ending], seconds: float) -> str:
    """Return one line: how many stages ended how."""
    counts = {ending: sum(value == ending for value in endings.values()) for ending in STYLES}
    told = ", ".join(f"{count} {ending}" for ending, count in counts.items() if count)
    return f"{len(endings)} stages: {told}; {seconds:.1f} s"
