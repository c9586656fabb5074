"""Receive: check what lies in data/incoming/D, and move it into data/batches/D or data/rejected/D.

Each arrival is moved whole by one rename, which is the moment when it counts as accepted or rejected. Until then it
stays where it is, so a killed run is finished by the next one.
"""

import logging
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from prefect import task

from config import paths
from datasets.dataset import Dataset
from runtime.atomic_outputs import staging
from runtime.disk import explain, refuse_unless_folder, refuse_unwritable
from runtime.errors import UserError
from tasks.arrivals.batches import equal_to, list_batches, number_of, numbered, refuse_lost_batches, safe_name
from tasks.arrivals.expectations import Expectations, check_batch, read_expectations
from tasks.arrivals.failures import Reasons
from tasks.arrivals.move import move, recover, write_flushed
from tasks.arrivals.parse import parse
from tasks.arrivals.settle import Snapshot, settled, try_snapshot
from tasks.data.files import read_table

UNFINISHED = (".tmp", ".part", ".partial", ".crdownload")  # endings of files that a program still writes
REASONS = ".reasons.csv"  # after the name of a rejected arrival

logger = logging.getLogger(__name__)


@dataclass
class Received:
    """What a run has done with the arrivals.

    accepted, rejected: their new paths. left: the paths of those that stay in data/incoming, which the log explains.
    """

    accepted: list[Path] = field(default_factory=list)
    rejected: list[Path] = field(default_factory=list)
    left: list[Path] = field(default_factory=list)


def receive(dataset: Dataset, workspace: Path = Path()) -> Received:
    """Accept or reject each arrival of a data set, in the order of their names.

    Args:
        dataset: whose rows have arrived.
        workspace: that has the data set's raw rows, if there are any yet; a batch of rows known there is rejected.

    Raises:
        UserError: batches that dvc.lock records are missing, another run receives, or a folder cannot be used.
        OSError: an arrival cannot be moved, such as onto a full disk; it is still in data/incoming.
    """
    incoming, batches = paths.incoming_folder(dataset.name), paths.batches_folder(dataset.name)
    rejected = paths.rejected_folder(dataset.name)
    refuse_lost_batches(dataset.name)
    with staging(batches, batches):  # one run at a time
        for folder in (incoming, rejected):
            refuse_unless_folder(folder)
        batches.mkdir(parents=True, exist_ok=True)
        for place in (batches, rejected):
            recover(incoming, place)
        done = Received()
        if arrivals := list_arrivals(incoming, done):
            refuse_unwritable(incoming)
            refuse_unwritable(rejected)
            expectations, complete = read_expectations(dataset), settled(arrivals)
            known = workspace / paths.raw_table(dataset.name)
            for arrival in arrivals:
                file_arrival(dataset, arrival, complete.get(arrival), expectations, known, done)
    if not (done.accepted or done.rejected or done.left):
        logger.info("%s: nothing has arrived in %s", dataset.name, incoming)
    return done


def list_arrivals(incoming: Path, done: Received) -> list[Path]:
    """Return the files and folders of `incoming` by name, without those that are hidden or unfinished by their names.

    What is neither, such as a symbolic link, is left, and so said.
    """
    arrivals = []
    for entry in sorted(incoming.iterdir()) if incoming.is_dir() else ():
        if entry.name.startswith(".") or entry.name.endswith(UNFINISHED):
            continue
        mode = entry.lstat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            arrivals.append(entry)
        else:
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
            leave(entry, f"is {kind}: put the file itself there", done)
    return arrivals


def file_arrival(
    dataset: Dataset,
    arrival: Path,
    before: Snapshot | None,
    expectations: Expectations | None,
    known: Path,
    done: Received,
) -> None:
    """Accept, reject or leave one arrival.

    Args:
        dataset: whose rows it should hold.
        arrival: the file or folder.
        before: it as it was found complete; None: it is still being written.
        expectations: that its rows must meet; None: there are none.
        known: the table of the data set's raw rows, which may be missing.
        done: gets what becomes of it.

    Raises:
        OSError: it cannot be moved.
    """
    try:
        rows, reasons = check(dataset, arrival, expectations, known) if before else (0, Reasons())
    except OSError as error:
        leave(arrival, f"cannot be read: {explain(error) or error}", done)
        return
    if not before or try_snapshot(arrival) != before:
        leave(arrival, "is still being written. The next run checks it", done)
    elif reasons.count:
        reject(dataset, arrival, reasons, done)
    else:
        accept(dataset, arrival, rows, done)


def check(dataset: Dataset, arrival: Path, expectations: Expectations | None, known: Path) -> tuple[int, Reasons]:
    """Return how many rows an arrival has, and the reasons against it.

    Args:
        dataset: whose rows it should hold.
        arrival: the file or folder.
        expectations: that its rows must meet; None: there are none.
        known: the table of the data set's raw rows, which may be missing.

    Raises:
        OSError: it cannot be read.
    """
    if twin := equal_to(arrival, list_batches(dataset.name)):
        reasons = Reasons()
        reasons.refuse(f"equals batch {twin.name}")
        return 0, reasons
    table, reasons = parse(dataset, arrival)
    if table is None:
        return 0, reasons
    if expectations:
        reasons.add(check_batch(dataset, table, expectations, known_rows(dataset, known)))
    return table.num_rows, reasons


def known_rows(dataset: Dataset, path: Path) -> pa.Table | None:
    """Return the raw rows of a data set; None where `ingest` has not made them, or must make them again."""
    try:
        return read_table(path, f"ingest@{dataset.name}")
    except UserError:
        return None


def accept(dataset: Dataset, arrival: Path, rows: int, done: Received) -> None:
    """Move an arrival into data/batches/D.

    Args:
        dataset: whose rows it holds.
        arrival: the file or folder.
        rows: how many it has.
        done: gets its new path.
    """
    target = next_place(paths.batches_folder(dataset.name), arrival)
    move(arrival, target)
    done.accepted.append(target)
    words = "1 row" if rows == 1 else f"{rows:,} rows"
    logger.info("%s: accepted %s, %s, as %s", dataset.name, shown(arrival), words, target)


def reject(dataset: Dataset, arrival: Path, reasons: Reasons, done: Received) -> None:
    """Move an arrival into data/rejected/D, after the table of the reasons against it.

    Args:
        dataset: whose rows it should hold.
        arrival: the file or folder.
        reasons: against it.
        done: gets its new path.
    """
    folder = paths.rejected_folder(dataset.name)
    folder.mkdir(parents=True, exist_ok=True)
    target = next_place(folder, arrival)
    table = target.with_name(f"{target.name}{REASONS}")
    write_flushed(table, reasons.table())
    move(arrival, target)
    done.rejected.append(target)
    words = "1 reason" if reasons.count == 1 else f"{reasons.count:,} reasons"
    logger.warning("%s: rejected %s, %s in %s: %s", dataset.name, shown(arrival), words, table, reasons.first())


def leave(arrival: Path, why: str, done: Received) -> None:
    """Leave an arrival where it is.

    Args:
        arrival: the file or folder.
        why: in words that follow its name.
        done: gets its path.
    """
    done.left.append(arrival)
    logger.warning("%s stays in %s: it %s", shown(arrival), arrival.parent, why)


def shown(arrival: Path) -> str:
    """Return the name of an arrival for a message, without control characters."""
    name = arrival.name
    return name if name.isprintable() else repr(name)


def next_place(folder: Path, arrival: Path) -> Path:
    """Return where an arrival is moved: its name behind the next number."""
    there = [number_of(entry) for entry in numbered(folder) if not entry.name.endswith(REASONS)]
    name = safe_name(arrival.name)
    if name.endswith(REASONS):  # one that a user has moved back
        name = f"{name.removesuffix(REASONS)} reasons.csv"
    return folder / f"{max(there, default=0) + 1:04d}-{name}"


receive_task = task(receive)
