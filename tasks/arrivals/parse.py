"""Parse an arrival to a table of the data set's raw columns: CSV, Parquet, or a folder of PNG pictures.

The values are those of the file, in raw units. Nothing is repaired: what does not fit is a reason against the file.
"""

import codecs
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from datasets.dataset import SPLIT_COLUMN, Dataset, to_column, to_values
from runtime.errors import shortened
from tasks.arrivals.failures import MAX_REASONS, Failure, Reasons

MAX_BYTES = 512 * 2**20  # of an arrival's values in memory
LABELS = "labels.csv"  # of a folder of pictures
LABEL_COLUMNS = ("file", "label")
TEXT_BYTES = 16
READ_ROWS = 65_536  # of a Parquet file at once
# What stands for a number in a CSV file. Arrow also takes hexadecimal numbers and words such as "inf".
FLOAT = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
INTEGER = r"^-?[0-9]+$"
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # begins a file in that encoding
PICTURE_MODES = {2: "L", 3: "RGB"}  # of Pillow, by the number of dimensions


class UnreadableError(Exception):
    """The whole file is of no use; the message says why."""


class StopReading(Exception):
    """The reasons say enough."""


def arrival_schema(dataset: Dataset) -> pa.Schema:
    """Return the columns of an arrival: the raw ones, without the split of the source."""
    return pa.schema([field for field in dataset.schema if field.name != SPLIT_COLUMN])


def parse(dataset: Dataset, path: Path) -> tuple[pa.Table | None, Reasons]:
    """Parse an arrival.

    Args:
        dataset: whose rows they should be.
        path: the file, or the folder of pictures.

    Returns:
        The table with the columns of `arrival_schema`, without missing values, and no reasons; or None and the reasons
        against it.

    Raises:
        OSError: the file system does not let it be read.
    """
    reasons = Reasons()
    table = None
    try:
        table = reader_of(dataset, path)(dataset, path, reasons)
        check_values(dataset, table, reasons)
    except UnreadableError as error:
        reasons.refuse(str(error))
    except StopReading:
        pass
    return (None if reasons.count else table), reasons


def reader_of(dataset: Dataset, path: Path) -> Callable[[Dataset, Path, Reasons], pa.Table]:
    kind = "folder" if path.is_dir() else path.suffix.lower()
    if kind == ".parquet":
        return read_parquet
    if kind == ".csv" and not dataset.has_pictures:
        return read_rows
    if kind == "folder" and dataset.has_pictures:
        return read_pictures
    other = f"a folder of PNG files with {LABELS}" if dataset.has_pictures else "a .csv file"
    found = "a folder" if kind == "folder" else f"a file {kind}" if kind else "a file without an ending"
    raise UnreadableError(f"is {found}; {dataset.name} takes a .parquet file or {other}")


def row_bytes(schema: pa.Schema) -> int:
    """Return the size of a row in memory; of a text, that of its place."""
    total = 0
    for kind in schema.types:
        shape, number = (kind.shape, kind.value_type) if isinstance(kind, pa.FixedShapeTensorType) else ((), kind)
        total += int(np.prod(shape)) * (max(1, number.bit_width // 8) if pa.types.is_primitive(number) else TEXT_BYTES)
    return total


def refuse_too_many(rows: int, schema: pa.Schema) -> None:
    limit = MAX_BYTES // row_bytes(schema)
    if rows > limit:
        raise UnreadableError(f"has more than {limit:,} rows, the most of one file: split it into several")


def check_columns(expected: pa.Schema, found: list[str], reasons: Reasons) -> None:
    """Raise StopReading where columns are missing, unknown, or there twice, after adding each to `reasons`."""
    for name in expected.names:
        if name not in found:
            reasons.refuse("is missing", name)
    for name in dict.fromkeys(found):
        if name == SPLIT_COLUMN and name not in expected.names:
            reasons.refuse("is not taken: the content of a new row decides its split", name)
        elif name not in expected.names:
            reasons.refuse(f"is unknown: the columns are {', '.join(expected.names)}", name)
        elif found.count(name) > 1:
            reasons.refuse("is there twice", name)
    if reasons.count:
        raise StopReading


def check_values(dataset: Dataset, table: pa.Table, reasons: Reasons) -> None:
    """Add a reason for each number that is not finite, and for each unknown class."""
    if table.num_rows == 0 and not reasons.count:
        raise UnreadableError("has no rows")
    for name in table.column_names:
        values = to_values(table[name])
        if values.dtype.kind == "f":
            add_rows(reasons, np.flatnonzero(~np.isfinite(values)), name, values, "is not a finite number")
        if name == dataset.target and dataset.class_names:
            unknown = np.flatnonzero((values < 0) | (values >= len(dataset.class_names)))
            known = ", ".join(f"{number} {label}" for number, label in enumerate(dataset.class_names))
            add_rows(reasons, unknown, name, values, f"is no class: {known}")


def add_rows(reasons: Reasons, rows: np.ndarray, column: str, values: np.ndarray | pa.Array, reason: str) -> None:
    """Add the same reason for several rows.

    Args:
        reasons: get them.
        rows: their positions.
        column: where the values stand.
        values: of all rows.
        reason: against each.
    """
    reasons.add((Failure(int(row), column, str(values[row]), reason) for row in rows[:MAX_REASONS]), len(rows))


# Parquet


def read_parquet(dataset: Dataset, path: Path, reasons: Reasons) -> pa.Table:
    schema = arrival_schema(dataset)
    with path.open("rb") as file, explained("is no readable Parquet file; it may be truncated"):
        parquet = pq.ParquetFile(file)
        found = parquet.schema_arrow
        check_columns(schema, found.names, reasons)
        for field in schema:
            if found.field(field.name).type != field.type:
                reasons.refuse(f"is {found.field(field.name).type}, expected {field.type}", field.name)
        if reasons.count:
            raise StopReading
        refuse_too_many(parquet.metadata.num_rows, schema)
        parts = list(parquet.iter_batches(READ_ROWS, columns=schema.names))
    table = pa.Table.from_batches(parts, found).select(schema.names) if parts else schema.empty_table()
    missing = False
    for name in schema.names:
        gaps = np.flatnonzero(table[name].is_null().to_numpy())
        reasons.add((Failure(int(row), name, "", "is missing") for row in gaps[:MAX_REASONS]), len(gaps))
        missing |= bool(len(gaps))
    if missing:
        raise StopReading
    return pa.table(table.columns, schema=schema)


@contextmanager
def explained(problem: str) -> Iterator[None]:
    """Turn what a parser raises into UnreadableError, and let errors of the file system pass."""
    try:
        yield
    except (pa.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        said = shortened(" ".join(str(error).split()), 200)
        raise UnreadableError(f"{problem} ({said})") from None


# CSV


def read_rows(dataset: Dataset, path: Path, reasons: Reasons) -> pa.Table:
    schema = arrival_schema(dataset)
    with path.open("rb") as file:
        return read_csv(file, schema, MAX_BYTES // row_bytes(schema), reasons)


def read_csv(file: BinaryIO, schema: pa.Schema, limit: int, reasons: Reasons) -> pa.Table:
    """Read a CSV file block by block.

    Args:
        file: open for reading.
        schema: its columns, in any order.
        limit: of its rows.
        reasons: get what is wrong with single rows; the table then lacks them.

    Raises:
        UnreadableError: the whole file is of no use.
        StopReading: the columns are others, or lines do not fit them.
    """
    refuse_cut_off(file)
    misfits: list[pa_csv.InvalidRow] = []

    def skip(row: pa_csv.InvalidRow) -> str:
        misfits.append(row)
        return "skip"

    convert = pa_csv.ConvertOptions(column_types=dict.fromkeys(schema.names, pa.string()), strings_can_be_null=False)
    parse_options = pa_csv.ParseOptions(invalid_row_handler=skip)
    found, rows, parts = Reasons(), 0, []
    with (
        explained("is no CSV file in UTF-8"),
        pa_csv.open_csv(file, convert_options=convert, parse_options=parse_options) as reader,
    ):
        check_columns(schema, reader.schema.names, reasons)
        for block in reader:
            columns = [convert_column(block[field.name], field, rows, found) for field in schema]
            rows += block.num_rows
            if rows > limit:
                raise UnreadableError(f"has more than {limit:,} rows, the most of one file: split it into several")
            if not found.count:
                parts.append(pa.RecordBatch.from_arrays(columns, schema=schema))
    if misfits:  # without them, the positions of the other rows are unknown
        reasons.add(
            (
                Failure(None, None, row.text, f"a line of {row.actual_columns} values, expected {row.expected_columns}")
                for row in misfits[:MAX_REASONS]
            ),
            len(misfits),
        )
        raise StopReading
    if found.count:
        reasons.add(found.kept, found.count)
        raise StopReading
    return pa.Table.from_batches(parts, schema)


def refuse_cut_off(file: BinaryIO) -> None:
    """Raise UnreadableError for an empty file, one in UTF-16, and one without a last line break: it may be cut off."""
    if not file.seek(0, os.SEEK_END):
        raise UnreadableError("is empty")
    file.seek(0)
    if file.read(2) in UTF_16:
        raise UnreadableError("is no CSV file in UTF-8 (it is in UTF-16)")
    file.seek(-1, os.SEEK_END)
    if file.read(1) not in (b"\n", b"\r"):
        raise UnreadableError("ends within a line, as a truncated file does: end its last row with a line break")
    file.seek(0)


def convert_column(texts: pa.Array, field: pa.Field, first: int, reasons: Reasons) -> pa.Array | None:
    """Return the values of a column, or None where one is of another type.

    Args:
        texts: the column.
        field: its name and type.
        first: position of the first row.
        reasons: get the misfits.
    """
    if field.type == pa.string():
        return texts
    texts = pc.utf8_trim_whitespace(texts)
    floating = pa.types.is_floating(field.type)
    fits = pc.match_substring_regex(texts, FLOAT if floating else INTEGER).to_numpy(zero_copy_only=False)
    if not fits.all():
        bad = np.flatnonzero(~fits)
        listed = [(int(row), texts[row].as_py()) for row in bad[:MAX_REASONS]]
        words = "is no number" if floating else "is no whole number"
        failures = (Failure(first + row, field.name, text, words if text else "is missing") for row, text in listed)
        reasons.add(failures, len(bad))
        return None
    try:
        return pc.cast(texts, field.type)
    except pa.ArrowInvalid:  # a number with too many digits
        for row, text in enumerate(texts.to_pylist()):
            try:
                pa.scalar(text).cast(field.type)
            except pa.ArrowInvalid:
                reasons.add([Failure(first + row, field.name, text, f"does not fit {field.type}")])
        return None


# Pictures


def read_pictures(dataset: Dataset, folder: Path, reasons: Reasons) -> pa.Table:
    """Read a folder of PNG files, in the order of its labels.csv."""
    schema = arrival_schema(dataset)
    if len(schema) != 2:
        raise UnreadableError(f"is a folder of pictures, but {dataset.name} has more columns: give a .parquet file")
    labels = folder / LABELS
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() or not entry.is_file():
            reasons.refuse(f"holds {shortened(repr(entry.name))}, which is no file")
    if not labels.is_file():
        reasons.refuse(f"has no {LABELS} with the columns {' and '.join(LABEL_COLUMNS)}")
    if reasons.count:
        raise StopReading
    [picture] = dataset.features
    columns = pa.schema([(LABEL_COLUMNS[0], pa.string()), (LABEL_COLUMNS[1], schema.field(dataset.target).type)])
    with labels.open("rb") as file:
        listed = read_csv(file, columns, MAX_BYTES // row_bytes(schema), reasons)
    names = listed[LABEL_COLUMNS[0]].to_pylist()
    check_names(folder, names, reasons)
    kind = schema.field(picture).type
    pixels = np.zeros((len(names), *kind.shape), kind.value_type.to_pandas_dtype())
    for row, name in enumerate(names):
        try:
            pixels[row] = read_picture(folder / name, tuple(kind.shape))
        except UnreadableError as error:
            reasons.add([Failure(row, LABEL_COLUMNS[0], name, str(error))])
    made = {picture: to_column(pixels), dataset.target: listed[LABEL_COLUMNS[1]]}
    return pa.table([made[name] for name in schema.names], schema=schema)


def check_names(folder: Path, names: list[str], reasons: Reasons) -> None:
    """Raise StopReading unless labels.csv names each picture of the folder once, and nothing else."""
    there = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")} - {LABELS}
    seen: set[str] = set()
    for row, name in enumerate(names):
        if name not in there:
            reasons.add([Failure(row, LABEL_COLUMNS[0], name, "is no file of this folder")])
        elif name in seen:
            reasons.add([Failure(row, LABEL_COLUMNS[0], name, "is listed twice")])
        seen.add(name)
    if left := sorted(there - seen):
        reasons.add((Failure(None, None, name, f"is not listed in {LABELS}") for name in left[:MAX_REASONS]), len(left))
    if reasons.count:
        raise StopReading


def read_picture(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the pixels of a PNG file; raises UnreadableError where it is none, or of another size or kind."""
    from PIL import Image

    expected = f"{shape[1]} x {shape[0]} {PICTURE_MODES[len(shape)]}"
    with path.open("rb") as file:
        try:
            with warnings.catch_warnings(action="error"), Image.open(file, formats=["PNG"]) as image:
                found = f"{image.width} x {image.height} {image.mode}"
                if found != expected:
                    raise UnreadableError(f"is {found}, expected {expected} of 8 bits")
                return np.asarray(image)
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError, Warning) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise UnreadableError("is no readable PNG file") from None
