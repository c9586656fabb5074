"""Tell which arrivals are complete: those whose files have not changed for a while."""

import time
from pathlib import Path

QUIET_SECONDS = 5.0  # without a change, after which a file counts as complete

Snapshot = tuple[tuple[str, int, int, int], ...]


def snapshot(path: Path) -> Snapshot:
    """Return name, size, time of change and number of each file and folder of an arrival."""
    entries = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]
    stats = [(str(entry), entry.lstat()) for entry in entries]
    return tuple((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats)


def settled(arrivals: list[Path]) -> dict[Path, Snapshot]:
    """Return the complete ones among the arrivals, as they are now.

    A file is complete when it was last changed QUIET_SECONDS ago. Where some are younger, this waits as long, once for
    all of them, and compares.
    """
    before = {path: found for path in arrivals if (found := try_snapshot(path))}
    young = [path for path, found in before.items() if is_young(found)]
    if young:
        time.sleep(QUIET_SECONDS)
    return {path: found for path, found in before.items() if path not in young or try_snapshot(path) == found}


def is_young(found: Snapshot) -> bool:
    """Return whether something was changed lately, or, by another clock, in the future."""
    return time.time() - max(changed for _, _, changed, _ in found) / 1e9 < QUIET_SECONDS


def try_snapshot(path: Path) -> Snapshot | None:
    """Return the snapshot of an arrival; None where parts of it vanish meanwhile."""
    try:
        return snapshot(path)
    except FileNotFoundError:
        return None
