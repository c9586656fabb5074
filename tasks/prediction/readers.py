"""Read files of rows piece by piece: CSV, Parquet, Arrow IPC, and folders of PNG pictures.

A piece is an Arrow batch of rows that follow each other in their file. Which rows lie in which piece depends on the
file alone, so that a file that is damaged in its middle gives the same rows each time.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from datasets.dataset import to_column
from runtime.errors import shortened
from tasks.arrivals.parse import UTF_16, UnreadableError, explained, read_picture
from tasks.prediction.inputs import Source
from tasks.prediction.saved_model import Tensor

READ_PICTURES = 1024  # of a folder
BUFFER_BYTES = 2**20
CSV_BYTES = 4 * 2**20  # of a CSV file at once; no line may be longer
MAX_MISFITS = 1_000_000  # lines that follow each other; more make a file unreadable
IPC_MAGIC = b"ARROW1"  # begins the file format; without it, it is a stream
Broken = dict[int, tuple[str, str]]


class Misfit(NamedTuple):
    """A line of a CSV file with another number of values than the header; row: its position, from 0."""

    row: int
    text: str
    reason: str


@dataclass(frozen=True)
class Piece:
    """Rows of a file.

    first: the position of the first one. share: of the file that is read with this piece, from 0 to 1. broken: the
    text and the reason of each row that could not be read, by its place in `batch`, which has nulls there.
    """

    first: int
    batch: pa.RecordBatch
    share: float
    broken: Broken = field(default_factory=dict)


@dataclass(frozen=True)
class Opened:
    """An open file.

    schema: of all its columns. read: takes names of columns, the position of the first row that is needed, and how many
    rows a chunk has; returns pieces, of which the first ones may lie before that row. It raises UnreadableError where
    the file is damaged.
    """

    schema: pa.Schema
    read: Callable[[list[str], int, int], Iterator[Piece]]


@contextmanager
def opened(source: Source, picture: tuple[str, Tensor] | None = None) -> Iterator[Opened]:
    """Open a file of rows, or a folder of pictures.

    picture: name and shape of the input that takes the pictures of a folder.

    Raises:
        UnreadableError: it is of no use.
        OSError: the file system does not let it be read.
    """
    if source.pictures is not None:
        assert picture
        yield open_pictures(source.path, source.pictures, *picture)
        return
    kind = source.path.suffix.lower()
    if kind == ".csv":
        with source.path.open("rb") as file:
            yield open_csv(file)
        return
    source.path.open("rb").close()  # for the error of the operating system, which names the file
    with pa.OSFile(str(source.path)) as file:
        yield open_parquet(file) if kind == ".parquet" else open_ipc(file)


def checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch; raises pa.ArrowInvalid where its values are such that reading them could end this process."""
    batch.validate(full=True)
    return batch


# Parquet


def open_parquet(file: pa.NativeFile) -> Opened:
    problem = "is no readable Parquet file; it may be truncated"
    with explained(problem):
        # Row groups are read page by page: one may hold the whole file.
        parquet = pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER_BYTES, page_checksum_verification=True)
        schema, total = parquet.schema_arrow, parquet.metadata.num_rows
        sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]

    def read(columns: list[str], needed: int, rows: int) -> Iterator[Piece]:
        first = 0
        for group, size in enumerate(sizes):
            if first + size <= needed:
                first += size
                continue
            with explained(problem):
                for batch in parquet.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False):
                    yield Piece(first, checked(batch), (first + batch.num_rows) / total)
                    first += batch.num_rows

    return Opened(schema, read)


# Arrow IPC


def open_ipc(file: pa.NativeFile) -> Opened:
    problem = "is no readable Arrow file; it may be truncated"
    size = max(1, file.size())
    is_file = file.read(len(IPC_MAGIC)) == IPC_MAGIC
    file.seek(0)
    opener = pa.ipc.open_file if is_file else pa.ipc.open_stream
    with explained(problem):
        schema = opener(file).schema
    file.seek(0)

    def read(columns: list[str], needed: int, rows: int) -> Iterator[Piece]:  # noqa: ARG001 - by batches
        first = 0
        wanted = [number for number, name in enumerate(schema.names) if name in columns] or [0]
        with explained(problem):
            reader = opener(file, options=pa.ipc.IpcReadOptions(included_fields=wanted if schema.names else []))
            batches = (reader.get_batch(n) for n in range(reader.num_record_batches)) if is_file else iter(reader)
            for number, batch in enumerate(batches):
                share = (number + 1) / reader.num_record_batches if is_file else file.tell() / size
                if first + batch.num_rows > needed:
                    yield Piece(first, checked(batch), share)
                first += batch.num_rows

    return Opened(schema, read)


# CSV


def open_csv(file: BinaryIO) -> Opened:
    """Open a CSV file, of which every column is text."""
    size, cut_off = look_at_csv(file)
    problem = "is no CSV file in UTF-8"
    with explained(problem), csv_reader(file, [], []) as reader:
        names = reader.schema.names
    schema = pa.schema([(name, pa.string()) for name in names])

    def read(columns: list[str], needed: int, rows: int) -> Iterator[Piece]:  # noqa: ARG001 - by blocks
        wanted = [name for name in names if name in columns] if len({*names}) == len(names) else []
        held: Piece | None = None  # until it is known whether it is the last
        try:
            with explained(problem):
                for piece in csv_pieces(file, names, wanted, size):
                    if held:
                        yield held
                    held = piece
        except UnreadableError:
            if held:
                yield held
            raise
        if held:
            if cut_off:
                reason = "the file ends within this line, as a truncated file does: end it with a line break"
                held.broken.setdefault(held.batch.num_rows - 1, ("", reason))
            yield held

    return Opened(schema, read)


def csv_pieces(file: BinaryIO, names: list[str], wanted: list[str], size: int) -> Iterator[Piece]:
    """Read a CSV file.

    Args:
        file: open for reading.
        names: of its columns.
        wanted: those to return; none: all.
        size: bytes of the file.
    """
    file.seek(0)
    misfits: list[Misfit] = []
    first = 0
    with csv_reader(file, names, misfits, wanted) as reader:
        for block in reader:
            if block.num_rows:
                piece = with_misfits(block, misfits, first, file.tell() / size)
                first += piece.batch.num_rows
                yield piece
        if misfits:
            nothing = pa.RecordBatch.from_pylist([], schema=reader.schema)
            yield with_misfits(nothing, misfits, first, 1.0)


def look_at_csv(file: BinaryIO) -> tuple[int, bool]:
    """Return the size of a CSV file and whether it lacks the last line break; UnreadableError: it is none."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        raise UnreadableError("is empty")
    file.seek(-1, os.SEEK_END)
    cut_off = file.read(1) not in (b"\n", b"\r")
    file.seek(0)
    if file.read(2) in UTF_16:
        raise UnreadableError("is no CSV file in UTF-8 (it is in UTF-16)")
    file.seek(0)
    return size, cut_off


def csv_reader(
    file: BinaryIO, names: list[str], misfits: list[Misfit], wanted: list[str] | None = None
) -> pa_csv.CSVStreamingReader:
    """Return a reader of blocks.

    Args:
        file: at its beginning.
        names: of its columns, all of which are text.
        misfits: gets the lines with another number of values.
        wanted: the columns to return; none: all.
    """

    def skip(row: pa_csv.InvalidRow) -> str:
        reason = f"a line of {row.actual_columns} values, expected {row.expected_columns}"
        misfits.append(Misfit(row.number - 2, shortened(row.text), reason))  # the header is line 1
        return "skip" if len(misfits) < MAX_MISFITS else "error"

    return pa_csv.open_csv(
        file,
        # Only without threads are the lines that do not fit numbered.
        read_options=pa_csv.ReadOptions(use_threads=False, block_size=CSV_BYTES),
        parse_options=pa_csv.ParseOptions(
            invalid_row_handler=skip, newlines_in_values=True, ignore_empty_lines=len(names) != 1
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False, include_columns=wanted or None
        ),
    )


def with_misfits(block: pa.RecordBatch, misfits: list[Misfit], first: int, share: float) -> Piece:
    """Put the lines that did not fit back between those that did, and take them off `misfits`.

    Args:
        block: the lines that fit; empty at the end of the file, when all misfits that are left follow.
        misfits: by position. Those after the last line of the block are left.
        first: the position of the first line.
        share: of the file that is read.
    """
    rows, before = block.num_rows, []  # the block's line that each misfit stands before
    for number, misfit in enumerate(misfits):
        line = misfit.row - first - number
        if rows and line >= rows:
            break
        before.append(line)
    if not before:
        return Piece(first, block, share)
    broken = {misfit.row - first: (misfit.text, misfit.reason) for misfit in misfits[: len(before)]}
    del misfits[: len(before)]
    places = np.insert(np.arange(rows), before, -1)
    return Piece(first, block.take(pa.array(places, mask=places < 0)), share, broken)


# Pictures


def open_pictures(folder: Path, names: tuple[str, ...], column: str, tensor: Tensor) -> Opened:
    """Open a folder of PNG files.

    Args:
        folder: it.
        names: of its files, in their order.
        column: that they are read into.
        tensor: what they must be.
    """

    def read(columns: list[str], needed: int, rows: int) -> Iterator[Piece]:  # noqa: ARG001
        for first in range(needed - needed % READ_PICTURES, len(names), READ_PICTURES):
            chosen = names[first : first + READ_PICTURES]
            pixels = np.zeros((len(chosen), *tensor.shape), tensor.dtype)
            broken: Broken = {}
            for row, name in enumerate(chosen):
                try:
                    if not (folder / name).is_file():
                        raise UnreadableError("is no file")
                    pixels[row] = read_picture(folder / name, tensor.shape)
                except UnreadableError as error:
                    broken[row] = ("", str(error))
            batch = pa.record_batch([to_column(pixels)], names=[column])
            yield Piece(first, batch, (first + len(chosen)) / len(names), broken)

    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(tensor.dtype), tensor.shape)
    return Opened(pa.schema([(column, kind)]), read)
