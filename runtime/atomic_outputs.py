"""Outputs that appear completely or not at all.

They are written in `.staging` and moved to their place, which a file system does atomically. If the place is on another
disk (a mount, or a folder behind a symbolic link), they are first copied into a folder `.staging` there.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from runtime.disk import refuse_unless_file, refuse_unwritable
from runtime.errors import UserError

STAGING = Path(".staging")
# A rename fails with these if the two names are on different disks, or one is a mount point.
OTHER_DISK = (errno.EXDEV, errno.EBUSY)
# The plan of `replace_parts`; it exists only as long as that is unfinished.
JOURNAL = "journal.json"

Others = Literal["keep", "refuse"]


@contextmanager
def atomic_folder(destination: Path, others: Others = "keep") -> Iterator[Path]:
    """Yield an empty folder that replaces `destination` when the block succeeds.

    When the block raises, `destination` stays as it was. Two processes that write the same destination exclude each
    other: the second raises UserError. others: whether files in `destination` that the block has not written again are
    kept, or make it fail.
    """
    with staging(destination, destination) as folder:
        new = folder / "new"
        new.mkdir()
        yield new
        kept = other_entries(destination, new)
        if kept and others == "refuse":
            raise UserError(
                f"{destination} holds {', '.join(entry.name for entry in kept)}, which this stage does not make, and "
                "the folder is replaced whole. Move what is yours elsewhere, remove the rest, and run again."
            )
        put_folder(new, destination.resolve(), kept)


@contextmanager
def atomic_files(destination: Path, name: str) -> Iterator[Path]:
    """Yield an empty folder whose files and folders are moved into the folder `destination` when the block succeeds.

    They replace what has the same name there, a folder completely. Writers of different `name` may use the same
    `destination` at the same time.
    """
    with staging(destination / name, destination) as folder:
        new = folder / "new"
        new.mkdir()
        yield new
        place = destination.resolve()
        place.mkdir(parents=True, exist_ok=True)
        try:
            replace_parts(new, place)
        except OSError as error:
            if error.errno not in OTHER_DISK:
                raise
            replace_in(new, place)


@contextmanager
def staging(destination: Path, folder_of: Path) -> Iterator[Path]:
    """Yield a folder for what is to be moved to `destination`, which no other process writes until then.

    What a killed process left is repaired first. folder_of: the folder that it is moved into, or that it replaces.
    """
    refuse_unwritable(STAGING)
    refuse_unwritable(folder_of)
    if folder_of == destination and not os.path.ismount(destination):
        refuse_unwritable(destination.resolve().parent)
    refuse_behind_link(folder_of)
    slug = "-".join(destination.parts)
    folder, lock = STAGING / slug, STAGING / f"{slug}.lock"
    STAGING.mkdir(exist_ok=True)
    refuse_unless_file(lock)
    try:
        with FileLock(lock, timeout=0):
            place = folder_of.resolve()
            for left in (folder, *(home / STAGING.name / slug for home in (place.parent, place))):
                recover(left, place)
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except Timeout:
        raise UserError(
            f"{destination} is being written by another run. Wait until it has finished, or stop it."
        ) from None


def other_entries(folder: Path, new: Path) -> list[Path]:
    """Return what lies in `folder` and under no name that `new` has."""
    if not folder.exists():
        return []
    names = {STAGING.name, *(entry.name for entry in new.iterdir())}
    return sorted(entry for entry in folder.iterdir() if entry.name not in names)


def put_folder(new: Path, place: Path, kept: list[Path]) -> None:
    """Replace one folder by another: atomically, unless `place` is a mount point.

    Args:
        new: the folder that is moved.
        place: the folder that it replaces.
        kept: entries of `place` that stay.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    if os.path.ismount(place):
        return replace_in(new, place)
    for entry in kept:
        copy(entry, new / entry.name)
    try:
        return swap(new, place)
    except OSError as error:
        if error.errno not in OTHER_DISK:
            raise
    if place.parent == Path.cwd().resolve():  # the disk of `.staging`
        return replace_in(new, place)
    with copied_to(place.parent, new) as near:
        try:
            return swap(near, place)
        except OSError as error:
            if error.errno not in OTHER_DISK:
                raise
    return replace_in(new, place)


def replace_in(new: Path, place: Path) -> None:
    """Move each part of `new` into the folder `place`, which is on another disk or a mount point."""
    with copied_to(place, new) as near:
        replace_parts(near, place)


def swap(new: Path, place: Path) -> None:
    old = new.parent / "old"
    try:
        if place.exists():
            place.replace(old)
        new.replace(place)
    finally:
        restore_previous(old, place)


def replace_parts(new: Path, place: Path) -> None:
    """Move each file and folder of `new` into the folder `place`: all of them, or none where one cannot be moved."""
    names = sorted(part.name for part in new.iterdir())
    old, journal = new.parent / "old", new.parent / JOURNAL
    old.mkdir(exist_ok=True)
    had = [name for name in names if os.path.lexists(place / name)]
    partial = journal.with_suffix(".partial")
    partial.write_text(json.dumps({"names": names, "had": had}), encoding="utf-8")
    partial.replace(journal)
    try:
        for name in names:
            if name in had:
                (place / name).replace(old / name)
            (new / name).replace(place / name)
        journal.unlink()
    finally:
        undo_parts(new.parent, place)


def undo_parts(folder: Path, place: Path) -> None:
    """Restore what an unfinished `replace_parts` replaced."""
    journal = folder / JOURNAL
    if not journal.exists():
        return
    planned = json.loads(journal.read_text(encoding="utf-8"))
    for name in planned["names"]:
        if os.path.lexists(folder / "old" / name):
            remove(place / name)
            (folder / "old" / name).replace(place / name)
        elif name not in planned["had"] and not os.path.lexists(folder / "new" / name):
            remove(place / name)
    journal.unlink()


@contextmanager
def copied_to(home: Path, new: Path) -> Iterator[Path]:
    """Yield a copy of the folder `new` on the disk of the folder `home`, in a hidden folder there."""
    hidden = home / STAGING.name
    folder = hidden / new.parent.name
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield Path(shutil.copytree(new, folder / new.name, symlinks=True))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            hidden.rmdir()


def recover(folder: Path, place: Path) -> None:
    """Repair what a killed process left of its staging in `folder`, and remove it."""
    if not os.path.lexists(folder):
        return
    if (folder / JOURNAL).exists():
        undo_parts(folder, place)
    else:
        restore_previous(folder / "old", place)
    remove(folder)
    if folder.parent != STAGING:
        with suppress(OSError):
            folder.parent.rmdir()


def restore_previous(old: Path, place: Path) -> None:
    """Move `old` back to `place` if nothing is there."""
    if old.exists() and not place.exists():
        old.replace(place)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def copy(source: Path, target: Path) -> None:
    """Copy a file, link or folder; the files are hard links if possible."""
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, copy_function=link_or_copy)
    else:
        link_or_copy(source, target)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another disk, or one that knows no hard links
        shutil.copy2(source, target, follow_symlinks=False)


def refuse_behind_link(folder: Path) -> None:
    """Raise UserError if DVC runs this stage and would not record its output, because a link leads out of git."""
    root = Path.cwd().resolve()
    if "DVC_STAGE" not in os.environ or folder.resolve().is_relative_to(root):
        return
    if any((parent / ".git").exists() for parent in (root, *root.parents)):
        link = next(parent for parent in reversed((folder, *folder.parents)) if parent.is_symlink())
        raise UserError(
            f"{link} is a symbolic link to {link.resolve()}, outside the git repository, where DVC records no outputs. "
            f"Remove the link and mount that folder in its place (mount --bind {link.resolve()} {link})."
        )


def write_text(path: Path, text: str) -> None:
    """Replace the file `path` atomically."""
    refuse_unless_file(path)
    place = path.resolve()
    refuse_unwritable(STAGING)
    STAGING.mkdir(exist_ok=True)
    partial = STAGING / path.name
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(place)
    except OSError as error:
        if error.errno not in OTHER_DISK:
            raise
        near = place.with_name(f".{place.name}.partial")
        try:
            near.write_text(text, encoding="utf-8")
            near.replace(place)
        finally:
            near.unlink(missing_ok=True)
    finally:
        partial.unlink(missing_ok=True)
