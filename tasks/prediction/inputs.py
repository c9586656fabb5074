"""The input of a prediction: a file, several files by a pattern, or a folder of pictures."""

import glob
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from runtime.disk import refuse_unless_file
from runtime.errors import UserError
from tasks.prediction.saved_model import LoadedModel
from tasks.publishing.checksums import sha256

TABLES = (".csv", ".parquet", ".arrow", ".feather", ".ipc", ".arrows")


@dataclass(frozen=True)
class Source:
    """A file of rows, or a folder of pictures.

    name: for the output; that of the file, with folders where several files have the same. size: bytes. pictures: the
    names of the pictures of a folder, in their order; None for a file.
    """

    path: Path
    name: str
    size: int
    pictures: tuple[str, ...] | None = None

    def name_of(self, row: int) -> str:
        """Return the name of the file that holds a row, as text."""
        return printable(self.pictures[row]) if self.pictures is not None else self.name

    @property
    def files(self) -> list[Path]:
        return [self.path] if self.pictures is None else [self.path / name for name in self.pictures]


def find_sources(given: str) -> list[Source]:
    """Return what to read, in the order of the output.

    given: a file, a folder of pictures, or a pattern such as `new/*.parquet`. A path that exists is no pattern.

    Raises:
        UserError: nothing is there, or a file has another ending than TABLES.
    """
    path = Path(given)
    if path.is_dir():
        return [of_folder(path)]
    if os.path.lexists(path) or not glob.has_magic(given):
        found = [path]
    else:
        names = glob.glob(given, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        found = sorted(Path(name) for name in names if not Path(name).is_dir())
        if not found:
            raise UserError(f"no file matches {given!r} in {Path.cwd()}.")
    for file in found:
        if file.suffix.lower() not in TABLES:
            raise UserError(f"{file}: give a file that ends in {', '.join(TABLES)}, or a folder of PNG pictures.")
        refuse_unless_file(file)
        if not file.exists():
            raise UserError(f"{file} not found in {Path.cwd()}.")
    names = [file.name for file in found]
    if len({*names}) < len(names):
        top = os.path.commonpath([file.parent for file in found])
        names = [os.path.relpath(file, top) for file in found]
    return [Source(file, printable(name), file.stat().st_size) for file, name in zip(found, names, strict=True)]


def of_folder(path: Path) -> Source:
    names = tuple(sorted(entry.name for entry in path.iterdir() if not entry.name.startswith(".")))
    if not names:
        raise UserError(f"{path} has no pictures.")
    return Source(path, printable(path.resolve().name), sum((path / name).lstat().st_size for name in names), names)


def printable(name: str) -> str:
    """Return a name of a file as text, also one whose bytes are none."""
    return name.encode(errors="replace").decode()


def refuse_pictures_for(model: LoadedModel, sources: Sequence[Source]) -> None:
    """Raise UserError where a folder of pictures is given to a model that does not take exactly one picture."""
    if all(source.pictures is None for source in sources):
        return
    shapes = [tensor.shape for tensor in model.inputs.values() if tensor.dtype == "uint8"]
    if len(model.inputs) == 1 and shapes and (len(shapes[0]) == 2 or (len(shapes[0]) == 3 and shapes[0][2] == 3)):
        return
    needs = ", ".join(f"{name} {list(tensor.shape)} {tensor.dtype}" for name, tensor in sorted(model.inputs.items()))
    raise UserError(
        f"{sources[0].path} is a folder, and only a model with one picture takes its pictures; {model.name} takes "
        f"{needs}. Give a file that ends in {', '.join(TABLES)}."
    )


def stamp(sources: Sequence[Source]) -> str:
    """Return a text that changes when a file of the input is replaced or written to."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(f"{source.name!r} {source.path.resolve()}\n".encode(errors="surrogateescape"))
        for file in source.files:
            now = file.lstat() if source.pictures is not None else file.stat()
            digest.update(f"{file.name!r} {now.st_size} {now.st_mtime_ns}\n".encode())
    return digest.hexdigest()


@contextmanager
def unchanged(sources: Sequence[Source]) -> Iterator[str]:
    """Yield the stamp of the input; raises UserError at the end if the input has changed within the block."""
    before = stamp(sources)
    yield before
    try:
        after = stamp(sources)
    except FileNotFoundError:
        after = ""
    if after != before:
        raise UserError(
            "the input was changed while it was read. Nothing was published; run again when it is complete."
        )


def checksum(source: Source) -> str:
    """Return the SHA-256 of a file; of a folder, one of the names and contents of its pictures, as of a SavedModel."""
    if source.pictures is None:
        return sha256(source.path)
    files = [(name, source.path / name) for name in source.pictures]
    lines = "".join(f"{sha256(file)}  {name}\n" for name, file in files if file.is_file())
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def start_hashing(sources: Sequence[Source]) -> Callable[[], list[str]]:
    """Compute the checksums of the input in a thread; return what waits for them."""
    found: list[str] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            found.extend(map(checksum, sources))
        except BaseException as error:  # noqa: BLE001 - raised where the checksums are needed
            failures.append(error)

    thread = Thread(target=work, name="hashing", daemon=True)  # an interrupted run does not wait for it
    thread.start()

    def result() -> list[str]:
        thread.join()
        if failures:
            raise failures[0]
        return found

    return result
