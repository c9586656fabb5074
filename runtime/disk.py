"""Problems with files and folders: something else in their place, no space, no permission; each with its remedy."""

import errno
import os
import re
import stat
from pathlib import Path

from runtime.errors import UserError

KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISREG, "a file"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
FREE_SPACE = "Free some space there and run again."
PERMISSIONS = "Give this user the right to read and write there (chown, chmod), or work in a folder of your own."
# The remedy for each error of the operating system that is no defect of the program.
REMEDIES = {
    errno.ENOSPC: FREE_SPACE,
    errno.EDQUOT: f"The quota of this user is used up. {FREE_SPACE}",
    errno.EROFS: "Mount it for writing, or work in a folder on another disk.",
    errno.EACCES: PERMISSIONS,
    errno.EPERM: PERMISSIONS,
    errno.ENAMETOOLONG: "Move the project to a folder with a shorter path, or give a shorter name.",
    errno.ELOOP: "Remove the symbolic link that leads back to itself.",
    errno.ENOTDIR: "Move the file that lies in a folder's place away.",
    errno.EEXIST: "Move what lies in a folder's place away.",
    errno.EISDIR: "Move the folder that lies in a file's place away.",
    errno.ENXIO: "Move what lies in a file's place away.",
    errno.EBUSY: "It is a mount point: mount the folder that it lies in, or unmount it.",
    errno.EXDEV: "It lies on another disk than its folder: mount the folder that it lies in.",
    errno.EIO: "The disk does not answer as it should: look into the system's log.",
    errno.ESTALE: "Mount the network disk again.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
    errno.ENFILE: "The machine has too many open files: end what holds them.",
    errno.EFBIG: "Raise the limit of a file's size (ulimit -f).",
}
FULL = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "no space left on the disk: ")
# Messages of libraries that give no error number: TensorFlow, HDF5, Arrow, SQLite.
MESSAGES = {
    **{os.strerror(code): code for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.EFBIG)},
    "database or disk is full": errno.ENOSPC,
    "No usable temporary directory": errno.ENOSPC,
    "attempt to write a readonly database": errno.EACCES,
    "unable to open database file": errno.EACCES,
}
DENIED = re.compile(r"errno = 13\b|; Permission denied$")


def explain(error: BaseException | None) -> str | None:
    """Return a line with file and remedy if a disk, a permission or a limit has caused `error`; else None."""
    while error:
        if found := describe(error):
            return found
        error = error.__cause__
    return None


def describe(error: BaseException) -> str | None:
    code, file = getattr(error, "errno", None), getattr(error, "filename", None)
    if isinstance(error, OSError) and code in REMEDIES and file is not None:
        other = f" -> {os.fsdecode(error.filename2)}" if error.filename2 else ""
        return f"{FULL.get(code, '')}{os.fsdecode(file)}{other}: {os.strerror(code)}{place(file)}. {REMEDIES[code]}"
    text = " ".join(str(error).split())
    found = next((number for words, number in MESSAGES.items() if words in text), None)
    if found is None and isinstance(error, OSError) and code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
        found = code
    if found is None and DENIED.search(text):
        found = errno.EACCES
    return f"{FULL.get(found, '')}{text}. {REMEDIES[found]}" if found is not None else None


def place(file: str | bytes | int) -> str:
    """Return in words the folder of a relative name, which does not say it itself; "" for an absolute one."""
    return "" if isinstance(file, int) or Path(os.fsdecode(file)).is_absolute() else f" in {Path.cwd()}"


def refuse_unless_file(path: Path) -> None:
    """Raise UserError if `path` is something else than a file; it need not exist.

    Opening a FIFO waits for another process forever, and the run would, too.
    """
    refuse_other(path, "a file")


def refuse_unless_folder(path: Path) -> None:
    """Raise UserError if `path` is something else than a folder; it need not exist."""
    refuse_other(path, "a folder")


def refuse_other(path: Path, wanted: str) -> None:
    for folder in reversed(path.parents):
        refuse_kind(folder, "a folder")
    refuse_kind(path, wanted)


def refuse_kind(path: Path, wanted: str) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise UserError(
                f"{path} is a symbolic link to {path.readlink()}, which is not there. Mount or make what it leads to, "
                "or remove the link."
            ) from None
        return
    except OSError as error:
        raise UserError(explain(error) or f"{path}: {error}") from None
    found = next((name for test, name in KINDS if test(mode)), "something else")
    if found != wanted:
        raise UserError(f"{path} is {found}, and {wanted} is needed there. Move it away and run again.")


def refuse_unwritable(folder: Path) -> None:
    """Raise UserError unless this process may create files in `folder`, or create it if it is missing."""
    refuse_unless_folder(folder)
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if os.access(there, os.W_OK | os.X_OK):
        return
    read_only = os.statvfs(there).f_flag & os.ST_RDONLY
    code = errno.EROFS if read_only else errno.EACCES
    raise UserError(f"{there.resolve()}: {os.strerror(code)}. {REMEDIES[code]}")
