"""Outputs that appear whole or not at all, and the JSON and Parquet files that stages exchange."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from config import paths
from config.errors import UserError


@contextmanager
def staged_folder(destination: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `destination` when the block succeeds.

    When the block raises, `destination` is as it was. Two processes that write the same destination
    exclude each other; the second raises UserError.
    """
    with staging(destination) as folder:
        new, old = folder / "new", folder / "old"
        new.mkdir()
        yield new
        destination.parent.mkdir(parents=True, exist_ok=True)
        try:
            if destination.exists():
                destination.replace(old)
            new.replace(destination)
        finally:
            put_back(old, destination)


@contextmanager
def staged_files(destination: Path, name: str) -> Iterator[Path]:
    """Yield an empty folder whose files and folders are moved into the folder `destination` when the block succeeds.

    What they replace is gone then, of a folder all of it. `name` tells apart those who may write to `destination` at
    the same time.
    """
    with staging(destination / name) as folder:
        new = folder / "new"
        new.mkdir()
        yield new
        destination.mkdir(parents=True, exist_ok=True)
        for part in sorted(new.iterdir()):
            target, old = destination / part.name, folder / part.name
            try:
                if target.is_dir():
                    target.replace(old)  # which goes with the staging
                part.replace(target)
            finally:
                put_back(old, target)


@contextmanager
def staging(destination: Path) -> Iterator[Path]:
    slug = "-".join(destination.parts)
    folder = paths.STAGING / slug
    paths.STAGING.mkdir(exist_ok=True)
    try:
        with FileLock(paths.STAGING / f"{slug}.lock", timeout=0):
            put_back(folder / "old", destination)  # where a process was killed between the two renames
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except Timeout:
        raise UserError(
            f"{destination} is being written by another run. Wait until it has finished, or stop it."
        ) from None


def put_back(old: Path, destination: Path) -> None:
    """Move `old` back to `destination` where nothing has taken its place."""
    if old.exists() and not destination.exists():
        old.replace(destination)


def write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path, produced_by: str) -> dict[str, Any]:
    """Read `path`; raises UserError that names the stage to run when it is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise missing(path, produced_by) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not valid JSON ({error}). Run `dvc repro --force {produced_by}`.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no JSON object. Run `dvc repro --force {produced_by}`.")
    return values


def write_table(path: Path, table: pa.Table, group_rows: int | None = None) -> None:
    """Write `table` as Parquet; group_rows: rows of a row group, which can be read by itself."""
    pq.write_table(table, path, compression="zstd", compression_level=13, row_group_size=group_rows)


def read_table(path: Path, produced_by: str) -> pa.Table:
    """Read `path`; raises UserError that names the stage to run when it is missing or damaged."""
    with open_table(path, produced_by) as file:
        return file.read()


@contextmanager
def open_table(path: Path, produced_by: str) -> Iterator[pq.ParquetFile]:
    """Open `path` to read parts of it; raises UserError, in the block too, when it is missing or damaged."""
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
