"""How a stage of a run ended, in the scheduler, in the progress table and in Prefect's UI."""

from typing import Literal

# restored: its outputs were missing and came from DVC's cache. not run: a stage that it needs failed.
StageStatus = Literal["ran", "restored", "unchanged", "failed", "interrupted", "not run"]
DONE: tuple[StageStatus, ...] = ("ran", "restored", "unchanged")
# The name of the Prefect state that a stage's task ends with.
STATE_NAMES: dict[StageStatus, str] = {
    "ran": "Completed",
    "restored": "Restored",
    "unchanged": "Unchanged",
    "failed": "Failed",
    "interrupted": "Interrupted",
    "not run": "NotRun",
}


def status_of_state(state_name: str) -> StageStatus:
    """Return the status that a Prefect state stands for; one that is not ours, such as Crashed, is a failure."""
    return next((status for status, name in STATE_NAMES.items() if name == state_name), "failed")
