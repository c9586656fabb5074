"""The timeline of a pipeline run: which stage ran when, how long, and which waited for free resources.

`reports/index.html` loads it as a script, because a page opened from a file cannot read JSON. DVC does not know it: it
is neither an output nor a dependency of any stage.
"""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from config import paths
from runtime.atomic_outputs import write_text
from runtime.disk import refuse_unwritable
from runtime.errors import UserError

NEVER_STARTED = "not run"


@dataclass
class Times:
    """When a stage started and ended, in seconds since the run began; None if it did not."""

    started: float | None = None
    ended: float | None = None
    status: str = NEVER_STARTED


class Timeline:
    """Records the stages of one run. It is used by the thread that schedules them alone.

    needs: the stages that each stage needs, for all stages of the run.
    """

    def __init__(self, needs: Mapping[str, Iterable[str]]):
        self.needs = {stage: list(needed) for stage, needed in needs.items()}
        self.began = datetime.now(UTC)
        self.clock = time.monotonic()
        self.times = {stage: Times() for stage in self.needs}

    def started(self, stage: str) -> None:
        """Note that the scheduler had room for `stage`."""
        self.times[stage].started = self.now()

    def ended(self, stage: str, status: str) -> None:
        self.times[stage].ended = self.now()
        self.times[stage].status = status

    def now(self) -> float:
        return time.monotonic() - self.clock

    def describe(self) -> dict[str, Any]:
        """Return the run as JSON has it. A stage is ready when all that it needs has ended; None: it never was."""
        stages = []
        for stage, times in self.times.items():
            ends = [self.times[need].ended for need in self.needs[stage] if need in self.times]
            ready = None if None in ends else max((end for end in ends if end is not None), default=0.0)
            seconds = {"ready": ready, "started": times.started, "ended": times.ended}
            rounded = {key: None if value is None else round(value, 3) for key, value in seconds.items()}
            stages.append({"name": stage, "status": times.status, **rounded})
        began = self.began.isoformat(timespec="seconds")
        return {"began": began, "seconds": round(self.now(), 3), "stages": stages}

    def write(self) -> str | None:
        """Write the run for the report, whole or not at all; return why that failed, None if it did not.

        A run whose stages are done does not fail because of this file.
        """
        text = f"window.lastRun = {json.dumps(self.describe())};\n"
        try:
            refuse_unwritable(paths.REPORTS)
            paths.REPORTS.mkdir(parents=True, exist_ok=True)
            write_text(paths.LAST_RUN, text)
        except (UserError, OSError) as error:
            return f"{paths.LAST_RUN} could not be written: {error}"
        return None
