"""The parts of an unfinished prediction: `.STEM.partial/` beside the output, from which a killed run goes on.

A part is a finished chunk: its rows of the output, and the records of its rejected rows. Each file gets its name when
it is whole; the one with the output comes last, and its metadata say where the next chunk begins.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock, Timeout

from runtime.atomic_outputs import remove
from runtime.disk import refuse_unwritable
from runtime.errors import UserError
from tasks.data.files import write_json
from tasks.prediction.checks import REJECTED
from tasks.prediction.chunks import Place

MANIFEST, LOCK, FACTS = "manifest.json", "lock", "part"


class RefusedRowError(UserError):
    """A row cannot be used, and the user wants every row to be."""


@dataclass(frozen=True)
class Part:
    """A finished chunk.

    rows: of the output. rejected: records. next: where the next chunk begins. share: of the input that is read then.
    unreadable: it ends with a damaged file.
    """

    rows: pa.RecordBatch
    rejected: pa.RecordBatch
    next: Place
    share: float
    unreadable: bool


def partial_folder(output: Path) -> Path:
    return output.with_name(f".{output.stem}.partial")


@contextmanager
def locked_folder(output: Path) -> Iterator[Path]:
    """Yield the folder for the parts of an output, which no other run writes meanwhile.

    It stays when the block raises, unless it holds no parts of any use.
    """
    refuse_unwritable(output.parent)
    folder = partial_folder(output)
    refuse_unwritable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0):
            try:
                yield folder
            except UserError as error:
                if isinstance(error, RefusedRowError) or not (folder / MANIFEST).exists():
                    remove(folder)
                raise
    except Timeout:
        raise UserError(f"{output} is being written by another run. Wait until it has finished, or stop it.") from None


def begin(folder: Path, manifest: dict[str, Any]) -> tuple[int, str]:
    """Say how many parts of the same prediction are there; where there are those of another one, remove them.

    Args:
        folder: of the parts.
        manifest: what the parts depend on, by the word for it.

    Returns:
        The number, and in words what has changed since the removed parts; "" where none were removed.
    """
    path, changed = folder / MANIFEST, ""
    there = count(folder)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    if found == manifest:
        return there, ""
    if there:
        changed = " and ".join(key for key in manifest if found.get(key) != manifest[key])
    for entry in folder.iterdir():
        if entry.name != LOCK:
            remove(entry)
    new = path.with_suffix(".new")
    write_json(new, manifest)
    new.replace(path)
    return 0, changed


def count(folder: Path) -> int:
    """Return how many parts there are, without a gap."""
    number = 0
    while part_file(folder, number).exists():
        number += 1
    return number


def part_file(folder: Path, number: int) -> Path:
    return folder / f"{number:08}.arrow"


def records_file(folder: Path, number: int) -> Path:
    return folder / f"{number:08}.rejected.arrow"


def write_part(folder: Path, number: int, part: Part) -> None:
    """Keep a finished chunk.

    Args:
        folder: of the parts.
        number: of the chunk, from 0.
        part: it.
    """
    facts = {"next": asdict(part.next), "share": part.share, "unreadable": part.unreadable}
    facts["rejected"] = part.rejected.num_rows
    if part.rejected.num_rows:
        write_batch(records_file(folder, number), part.rejected, {})
    write_batch(part_file(folder, number), part.rows, facts)


def write_batch(path: Path, batch: pa.RecordBatch, facts: dict[str, Any]) -> None:
    new, schema = path.with_suffix(".new"), batch.schema.with_metadata({FACTS: json.dumps(facts)})
    with pa.OSFile(str(new), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(batch)
    new.replace(path)


def read_part(folder: Path, number: int, schema: pa.Schema) -> Part | None:
    """Read a finished chunk; None where it is damaged, as after a loss of power.

    Args:
        folder: of the parts.
        number: of the chunk.
        schema: of the output.
    """
    try:
        rows, facts = read_batch(part_file(folder, number), schema)
        rejected = pa.RecordBatch.from_pylist([], schema=REJECTED)
        if facts["rejected"]:
            rejected, _ = read_batch(records_file(folder, number), REJECTED)
        if rejected.num_rows != facts["rejected"]:
            return None
        return Part(rows, rejected, Place(**facts["next"]), facts["share"], facts["unreadable"])
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return None


def read_batch(path: Path, schema: pa.Schema) -> tuple[pa.RecordBatch, dict[str, Any]]:
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        batch = reader.get_batch(0)
        batch.validate(full=True)
        facts = json.loads(reader.schema.metadata[FACTS.encode()])
    return pa.RecordBatch.from_arrays(batch.columns, schema=schema), facts


def publish(file: Path, place: Path) -> None:
    """Move a file to its place once the disk has it."""
    flush(file)
    file.replace(place)


def flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
