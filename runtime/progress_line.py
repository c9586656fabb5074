"""The line by which a training reports its progress: written to the stage's log, read back for the run's live table."""

import re
from dataclasses import dataclass

SEPARATOR = "  "
LINE = re.compile(rf"epoch (\d+)/(\d+){SEPARATOR}(.*)$")


@dataclass(frozen=True)
class EpochProgress:
    """How far a training is.

    details: what the line says after the epoch, such as `loss 0.1234` and `12 s left`; none holds two spaces in a row.
    """

    epoch: int
    epochs: int
    details: tuple[str, ...]

    def __str__(self) -> str:
        return f"epoch {self.epoch}/{self.epochs}{SEPARATOR}{SEPARATOR.join(self.details)}"


def parse_progress(line: str) -> EpochProgress | None:
    """Return the progress that a line of a log ends with, whatever a logger has put before it; None without one."""
    found = LINE.search(line)
    return EpochProgress(int(found[1]), int(found[2]), tuple(found[3].split(SEPARATOR))) if found else None
