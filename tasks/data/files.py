"""JSON and Parquet files. A missing or damaged file is a UserError that names the stage to run."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from runtime.disk import refuse_unless_file
from runtime.errors import UserError


def write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path, produced_by: str) -> dict[str, Any]:
    """Read a JSON object; raises UserError that names the stage `produced_by` where it is missing or damaged."""
    refuse_unless_file(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique, parse_constant=refuse_constant)
        json.dumps(values, ensure_ascii=False, allow_nan=False).encode()  # refuses lone surrogates and infinite numbers
    except FileNotFoundError:
        raise missing(path, produced_by) from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply. Run `dvc repro --force {produced_by}`.") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not valid JSON ({error}). Run `dvc repro --force {produced_by}`.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no JSON object. Run `dvc repro --force {produced_by}`.")
    return values


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; raises ValueError where it has a key twice, because json.loads would drop one."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return values


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def write_table(path: Path, table: pa.Table, group_rows: int | None = None) -> None:
    """Write a Parquet file.

    Args:
        path: the file.
        table: its rows.
        group_rows: rows of a row group, which can be read by itself; None: pyarrow's own number.
    """
    pq.write_table(table, path, compression="zstd", compression_level=13, row_group_size=group_rows)


def read_table(path: Path, produced_by: str) -> pa.Table:
    """Read a Parquet file; raises UserError that names the stage `produced_by` where it is missing or damaged."""
    with open_table(path, produced_by) as file:
        return file.read()


@contextmanager
def open_table(path: Path, produced_by: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file to read parts; raises UserError, in the block too, where it is missing or damaged."""
    refuse_unless_file(path)
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            yield file
    except FileNotFoundError:
        raise missing(path, produced_by) from None
    except (pa.ArrowException, ValueError, OSError) as error:
        raise UserError(
            f"{path} is not a readable Parquet file ({error}). Run `dvc repro --force {produced_by}`."
        ) from None


def missing(path: Path, produced_by: str) -> UserError:
    return UserError(f"{path} not found. Run `dvc repro {produced_by}` first.")
