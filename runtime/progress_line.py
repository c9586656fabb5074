"""The line by which a stage reports its progress: written to its log, read back for the run's live table."""

import re
from dataclasses import dataclass

SEPARATOR = "  "
LINE = re.compile(rf"(epoch|trial) (\d+)/(\d+){SEPARATOR}(.*)$")


@dataclass(frozen=True)
class StepProgress:
    """How far a training or a search is.

    unit: "epoch" or "trial". step, steps: how many of them are done, and are to be done. details: what the line says
    after that, such as `loss 0.1234` and `12 s left`; none holds two spaces in a row.
    """

    unit: str
    step: int
    steps: int
    details: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.unit} {self.step}/{self.steps}{SEPARATOR}{SEPARATOR.join(self.details)}"


def parse_progress(line: str) -> StepProgress | None:
    """Return the progress that a line of a log ends with, whatever a logger has put before it; None without one."""
    found = LINE.search(line)
    return StepProgress(found[1], int(found[2]), int(found[3]), tuple(found[4].split(SEPARATOR))) if found else None
