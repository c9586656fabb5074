"""Move an arrival whole: by one rename, after which it is in its new place and nowhere else.

Between two disks it is copied under a hidden name, and the copy is renamed. Meanwhile the original lies in a hidden
folder next to it, from which the next run tells what a killed one has done.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from runtime.atomic_outputs import OTHER_DISK, remove
from tasks.arrivals.batches import equal_to, files_of, numbered

MOVING = ".moving-to-"  # begins the name of a folder of arrivals that are being copied
MOVED = ".moved"  # folder of arrivals whose copies are in place
PARTIAL = ".partial-"  # begins the name of an unfinished copy


def move(source: Path, target: Path) -> None:
    """Move a file or folder to `target`, which does not exist.

    Raises:
        OSError: it cannot be moved; then it is where it was.
    """
    flush(source)
    try:
        source.rename(target)
    except OSError as error:
        if error.errno not in OTHER_DISK:
            raise
        move_to_other_disk(source, target)
    flush_folder(target.parent)
    flush_folder(source.parent)


def move_to_other_disk(source: Path, target: Path) -> None:
    moving, partial = moving_to(source.parent, target.parent) / source.name, target.with_name(f"{PARTIAL}{target.name}")
    moving.parent.mkdir(exist_ok=True)
    source.rename(moving)
    try:
        if moving.is_dir():
            shutil.copytree(moving, partial, symlinks=True)
        else:
            shutil.copy2(moving, partial)
        flush(partial)
        partial.rename(target)
    except OSError:
        remove(partial)
        moving.rename(source)
        raise
    flush_folder(target.parent)
    discard(moving)


def moving_to(incoming: Path, place: Path) -> Path:
    """Return the folder for arrivals on their way to `place`, such as data/batches/D."""
    return incoming / f"{MOVING}{place.parent.name}"


def discard(moving: Path) -> None:
    """Remove an arrival whose copy is in place; a kill in between leaves a part of it only in `.moved`."""
    moved = moving.parent.with_name(MOVED) / moving.name
    moved.parent.mkdir(exist_ok=True)
    remove(moved)
    moving.rename(moved)
    remove(moved)
    for folder in (moving.parent, moved.parent):
        with suppress(OSError):
            folder.rmdir()


def recover(incoming: Path, place: Path) -> None:
    """Finish or undo what a killed run was moving from `incoming` to `place`, on another disk."""
    for partial in place.glob(f"{PARTIAL}*"):
        remove(partial)
    for moved in (incoming / MOVED).glob("*"):
        remove(moved)
    for moving in sorted(moving_to(incoming, place).glob("*")):
        if equal_to(moving, numbered(place)):  # the copy is in place
            discard(moving)
        else:
            moving.rename(free_name(incoming / moving.name))
    for folder in (moving_to(incoming, place), incoming / MOVED):
        with suppress(OSError):
            folder.rmdir()


def free_name(path: Path) -> Path:
    """Return `path`, or where something lies there, a name like it."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return free


def write_flushed(path: Path, text: str) -> None:
    """Write a text file whole, and wait until the disk has it."""
    partial = path.with_name(f"{PARTIAL}{path.name}")
    try:
        partial.write_text(text, encoding="utf-8", errors="replace")
        flush(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    flush_folder(path.parent)


def flush(path: Path) -> None:
    """Wait until the disk has the files of `path`."""
    for file in files_of(path):
        with file.open("rb") as content:
            os.fsync(content.fileno())
    for folder in [path, *path.rglob("*")] if path.is_dir() else []:
        if folder.is_dir():
            flush_folder(folder)


def flush_folder(folder: Path) -> None:
    """Wait until the disk has the names in `folder`; some network disks do not offer that."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
