"""Whether the files of a model come from one training: run.json records the checksum of each file beside it."""

import hashlib
from pathlib import Path


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below `folder`, by its path there."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): sha256(file) for file in files}


def of_another_training(folder: Path, recorded: object) -> list[str]:
    """Return the files of `folder`, by path, whose checksum is not the one that run.json has `recorded`.

    Files that it does not record, or that are not there, do not count.
    """
    expected = recorded if isinstance(recorded, dict) else {}
    return [name for name, found in checksums(folder).items() if expected.get(name, found) != found]


def sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
