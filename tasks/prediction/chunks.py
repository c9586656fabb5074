"""Cut the input into chunks of rows that are checked and ready for the model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import pyarrow as pa

from runtime.errors import UserError, shortened
from tasks.arrivals.parse import UnreadableError
from tasks.prediction.checks import REJECTED, fault_of, plain, rejected, shown, to_input
from tasks.prediction.compiled import Answer
from tasks.prediction.inputs import Source
from tasks.prediction.readers import Broken, Opened, Piece, opened
from tasks.prediction.saved_model import LoadedModel, Tensor

CHUNK_BYTES = 8 * 2**20  # of a chunk's values; the fastest on 2 cores, with little to do again after a kill
CALL_BYTES = 64 * 2**20  # of the largest layer in a call of the model, such as a filter's output for each pixel
MAX_ROWS, MIN_ROWS = 262_144, 16


@dataclass(frozen=True)
class Place:
    """A place in the input: the number of a file, and the position of a row there."""

    file: int
    row: int


@dataclass(frozen=True)
class Chunk:
    """Rows of one file that follow each other.

    source: the file. rows: the positions of those that can be used. columns: their values, by input of the model.
    kept: their values of the columns to keep. rejected: records of the others. next: where the next chunk begins.
    share: of the input that is read then. unreadable: the file is damaged, and the rows after this chunk are lost.
    """

    source: Source
    rows: np.ndarray
    columns: dict[str, np.ndarray]
    kept: dict[str, pa.Array]
    rejected: pa.RecordBatch
    next: Place
    share: float
    unreadable: bool = False


@dataclass(frozen=True)
class Plan:
    """What is read from each file.

    inputs: of the model. keep: types of the columns to keep; None: no file has it. rows: of a chunk.
    """

    inputs: Mapping[str, Tensor]
    keep: Mapping[str, pa.DataType | None]
    rows: int

    @property
    def picture(self) -> tuple[str, Tensor]:
        return next(iter(self.inputs.items()))


def chunk_rows(model: LoadedModel) -> int:
    """Return how many rows a chunk has."""
    return fitting(CHUNK_BYTES, sum(prod(tensor.shape) * tensor.dtype.itemsize for tensor in model.inputs.values()))


def call_rows(model: LoadedModel) -> int:
    """Return how many rows a call of the model takes: its largest layer must fit the memory."""
    return fitting(CALL_BYTES, 4 * model.largest_layer)


def in_calls(model: LoadedModel, call: Answer, columns: Mapping[str, np.ndarray], most: int) -> dict[str, np.ndarray]:
    """Return what a model answers to some rows, by output.

    Args:
        model: that answers.
        call: how it is called.
        columns: a value of each input, [rows] or [rows, ...].
        most: rows of a call.

    Raises:
        UserError: an output has not one value for each row.
    """
    rows = len(next(iter(columns.values())))
    if not rows:
        return {name: np.zeros((0, *tensor.shape), tensor.dtype) for name, tensor in model.outputs.items()}
    calls = []
    for first in range(0, rows, most):
        calls.append(call({name: values[first : first + most] for name, values in columns.items()}))
        for name, values in calls[-1].items():
            if values.ndim == 0 or len(values) != min(most, rows - first):
                raise UserError(
                    f"{model.name} answers {name} with the shape {list(values.shape)} for {min(most, rows - first)} "
                    "rows. It must answer each row by itself."
                )
    return calls[0] if len(calls) == 1 else {name: np.concatenate([call[name] for call in calls]) for name in calls[0]}


def fitting(room: int, row_bytes: int) -> int:
    """Return a power of two, as many rows as fit the room, within MIN_ROWS and MAX_ROWS."""
    return min(MAX_ROWS, max(MIN_ROWS, 2 ** ((room // max(1, row_bytes)).bit_length() - 1 if room >= row_bytes else 0)))


def make_plan(model: LoadedModel, sources: Sequence[Source], keep: Sequence[str]) -> Plan:
    """Say what is read, after a look at the columns of the first files: until each column to keep is found.

    Args:
        model: that takes the rows.
        sources: the input.
        keep: names of columns.
    """
    found: dict[str, pa.DataType | None] = dict.fromkeys(keep)
    plan = Plan(model.inputs, found, chunk_rows(model))
    for source in sources:
        if None not in found.values():
            break
        try:
            with opened(source, plan.picture) as file:
                for field in file.schema:
                    if field.name in found and found[field.name] is None:
                        found[field.name] = plain(field.type)
        except UnreadableError:
            continue
    return plan


def make_chunks(plan: Plan, sources: Sequence[Source], start: Place) -> Iterator[Chunk]:
    """Yield the chunks of the input, beginning at the start of one.

    Args:
        plan: what is read.
        sources: the input.
        start: where the first chunk begins.
    """
    total, before = max(1, sum(source.size for source in sources)), 0
    for number, source in enumerate(sources):
        if number >= start.file:
            row = start.row if number == start.file else 0
            yield from of_source(plan, source, Place(number, row), before / total, source.size / total)
        before += source.size


def of_source(plan: Plan, source: Source, start: Place, before: float, part: float) -> Iterator[Chunk]:
    """Yield the chunks of a file.

    Args:
        plan: what is read.
        source: the file.
        start: where the first chunk begins.
        before: share of the input that lies before the file.
        part: share of the input that is this file.
    """
    end, held = Place(start.file + 1, 0), None  # until it is known whether more follows
    try:
        with opened(source, plan.picture) as file:
            fault = fault_of(file.schema, plan.inputs, plan.keep)
            wanted = [] if fault else [*plan.inputs, *plan.keep]
            for first, parts, share in grouped(file, wanted, start.row, plan.rows):
                if held:
                    yield held
                rows = sum(batch.num_rows for batch, _ in parts)
                place = Place(start.file, first + rows)
                made = check(plan, source, first, parts, fault)
                held = Chunk(source, *made, next=place, share=before + part * share)
    except UnreadableError as error:
        if held:
            yield held
        nothing = check(plan, source, 0, [], ("", ""))
        record = rejected(source.name, np.zeros(1, np.int64), None, "", f"the file {error}")
        record = record.set_column(1, "row", pa.array([None], pa.int64()))
        yield Chunk(source, *nothing[:3], record, end, before + part, unreadable=True)
        return
    if held:
        yield Chunk(held.source, held.rows, held.columns, held.kept, held.rejected, next=end, share=before + part)


Parts = list[tuple[pa.RecordBatch, Broken]]


def grouped(file: Opened, columns: list[str], start: int, size: int) -> Iterator[tuple[int, Parts, float]]:
    """Yield the position of the first row of each chunk of `size` rows, its pieces, and the share of the file.

    Where the file is damaged, a smaller chunk with the rows before the damage comes first.

    Args:
        file: an open file.
        columns: that are needed.
        start: the position of the first row that is needed.
        size: rows of a chunk.
    """
    parts: Parts = []
    first, have, share, before = start, 0, 0.0, 0.0
    damage: UnreadableError | None = None
    try:
        for piece in file.read(columns, start, size):
            at, count = max(0, start - piece.first), piece.batch.num_rows
            while at < count:
                taken = min(size - have, count - at)
                parts.append(cut(piece, at, taken))
                at, have = at + taken, have + taken
                share = before + (piece.share - before) * at / count
                if have == size:
                    yield first, parts, share
                    parts, first, have = [], first + have, 0
            before = piece.share
    except UnreadableError as error:
        damage = error
    if parts:
        yield first, parts, share
    if damage:
        raise damage


def cut(piece: Piece, at: int, rows: int) -> tuple[pa.RecordBatch, Broken]:
    broken = {row - at: found for row, found in piece.broken.items() if at <= row < at + rows} if piece.broken else {}
    return piece.batch.slice(at, rows), broken


def check(
    plan: Plan, source: Source, first: int, parts: Parts, fault: tuple[str, str] | None
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, pa.Array], pa.RecordBatch]:
    """Return what a `Chunk` holds of some rows: the positions of the usable ones, their values, the kept ones, records.

    Args:
        plan: what is read.
        source: the file.
        first: position of the first row.
        parts: the rows.
        fault: why no row can be used, if so: column and reason.
    """
    count = sum(batch.num_rows for batch, _ in parts)
    rows = np.arange(first, first + count)
    records: list[pa.RecordBatch] = []
    bad = np.zeros(count, bool)

    def reject(at: np.ndarray, column: str | None, values: Sequence[str], reason: str | Sequence[str]) -> None:
        """Reject rows, by their places in the chunk."""
        bad[at] = True
        names = [source.name_of(row) for row in rows[at]] if source.pictures is not None else source.name
        records.append(rejected(names, position(source, rows[at]), column, values, reason))

    broken: Broken = {}
    for start, (_, found) in zip(np.cumsum([0, *(batch.num_rows for batch, _ in parts)]), parts, strict=False):
        broken |= {int(start) + row: why for row, why in found.items()}
    if broken:
        texts, reasons = zip(*broken.values(), strict=True)
        reject(np.array([*broken]), None, texts, reasons)
    if fault:
        left = np.flatnonzero(~bad)
        if len(left):
            reject(left, fault[0], "", fault[1])
        columns = {name: np.zeros((0, *tensor.shape), tensor.dtype) for name, tensor in plan.inputs.items()}
        kept = {name: pa.nulls(0, kind or pa.null()) for name, kind in plan.keep.items()}
        return rows[:0], columns, kept, in_order(records)
    given = {name: joined([batch.column(name) for batch, _ in parts]) for name in {**plan.inputs, **plan.keep}}
    columns = {}
    for name in (name for name in parts[0][0].schema.names if name in plan.inputs):
        columns[name], faults = to_input(given[name], plan.inputs[name])
        for wrong, reason in faults:
            at = np.flatnonzero(wrong & ~bad)
            if len(at):
                reject(at, name, shown(given[name], at), reason)
    kept = {name: given[name] for name in plan.keep}
    if bad.any():
        good = np.flatnonzero(~bad)
        columns = {name: values[good] for name, values in columns.items()}
        kept = {name: values.take(pa.array(good)) for name, values in kept.items()}
        rows = rows[good]
    return rows, columns, kept, in_order(records)


def position(source: Source, rows: np.ndarray) -> np.ndarray:
    """Return the positions of rows in their own files: each picture is a file of one row."""
    return np.zeros_like(rows) if source.pictures is not None else rows


def joined(arrays: list[pa.Array]) -> pa.Array:
    whole = arrays[0] if len(arrays) == 1 else pa.concat_arrays([plainly(array) for array in arrays])
    return plainly(whole)


def plainly(array: pa.Array) -> pa.Array:
    """Return the values of a dictionary array, whose dictionary may differ from piece to piece."""
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def in_order(records: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Join the records of a chunk, by position; those of pictures, by name."""
    if not records:
        return pa.RecordBatch.from_pylist([], schema=REJECTED)
    if len(records) == 1:
        return records[0]
    table = pa.Table.from_batches(records).sort_by([("row", "ascending"), ("file", "ascending")]).combine_chunks()
    return table.to_batches()[0]


def told(record: dict[str, object]) -> str:
    """Return a record in words."""
    where = [str(record["file"])]
    where += [f"row {record['row']} (from 0)"] if record["row"] is not None else []
    where += [f"column {record['column']!r}"] if record["column"] else []
    value = f"{shortened(repr(record['value']))} " if record["value"] else ""
    return f"{', '.join(where)}: {value}{record['reason']}"
