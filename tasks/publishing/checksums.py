"""Checksums of the files of a training, in run.json, by which files of another training are found."""

import hashlib
from pathlib import Path


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below `folder`, by its path there."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): sha256(file) for file in files}


def of_another_training(folder: Path, recorded: dict[str, str]) -> list[str]:
    """Return the paths of the files of `folder` whose checksum differs from the recorded one.

    Files that are not recorded or missing do not count. recorded: SHA-256 by path, of run.json.
    """
    return [name for name, found in checksums(folder).items() if recorded.get(name, found) != found]


def sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def tree_sha256(folder: Path) -> str:
    """Return one SHA-256 of the paths and contents of all files below `folder`."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in checksums(folder).items())
    return hashlib.sha256(lines.encode()).hexdigest()
