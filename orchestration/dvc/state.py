"""Check and repair DVC's own files: a full disk or a kill can damage them so that no DVC command works any more."""

import json
import os
from pathlib import Path

import psutil
from dvc.lock import LockError, make_lock
from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK, SCHEMA, Invalid

from config import paths
from orchestration.dvc.lockfile import LOCK_FILE
from runtime.disk import refuse_unless_file, refuse_unless_folder
from runtime.errors import UserError

TMP = Path(".dvc/tmp")
# Says which DVC process reads or writes which path; DVC rewrites the file in place, without a copy.
USERS = TMP / RWLOCK_FILE
FILES = (Path("dvc.yaml"), Path(LOCK_FILE), paths.PARAMS, Path(".dvc/config"), TMP / "lock", USERS, TMP / RWLOCK_LOCK)
FOLDERS = (Path(".dvc/cache"), TMP)
# DVC reads every file in these.
READ = (paths.BATCHES, paths.RAW, paths.PREPARED, paths.ARTIFACTS, paths.REPORTS)


def repair_dvc_state() -> None:
    """Remove DVC's list of users if it is broken and no DVC runs here; call it with the workspace locked.

    Raises UserError, naming file and remedy, if a DVC runs, or if something else lies in the place of a file.
    """
    for folder in FOLDERS:
        refuse_unless_folder(folder)
    for file in FILES:
        refuse_unless_file(file)
    for folder in READ:
        refuse_special_files(folder)
    if not is_broken(USERS):
        return
    if users := dvc_processes():
        raise UserError(
            f"{USERS} is damaged, as a full disk leaves it, and DVC runs here ({', '.join(users)}). "
            f"Wait until it has ended, remove {USERS}, and run again."
        )
    try:
        with make_lock(str(TMP / RWLOCK_LOCK), tmp_dir=str(TMP)):
            if is_broken(USERS):
                USERS.unlink()
    except LockError:
        raise UserError(f"{USERS} is damaged, and another process uses it. Remove it and run again.") from None


def refuse_special_files(folder: Path) -> None:
    """Raise UserError if there is a FIFO, a socket or a device in `folder`: DVC would wait for it forever."""
    for root, _, names in os.walk(folder):
        for name in names:
            file = Path(root, name)
            if file.exists() and not file.is_file():
                refuse_unless_file(file)


def is_broken(file: Path) -> bool:
    """Return whether DVC would refuse to read its list of users."""
    try:
        SCHEMA(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return False
    except (ValueError, Invalid, RecursionError):
        return True
    return False


def dvc_processes() -> list[str]:
    """Return the other processes of DVC in this workspace, in words."""
    root, found = Path.cwd(), []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if process.pid != os.getpid() and is_dvc(words) and Path(process.cwd()).is_relative_to(root):
                found.append(f"process {process.pid}")
        except psutil.Error:
            continue
    return found


def is_dvc(words: list[str]) -> bool:
    names = [Path(word).name for word in words[:3]]
    return "dvc" in names and ("dvc" in names[:2] or words[1] == "-m")
