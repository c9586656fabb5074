"""Restore the missing outputs of a stage that has not changed otherwise, so that it need not run.

DVC itself would run the stage: its run cache ignores stages whose outputs persist (dvc.yaml says why they do).
"""

import hashlib
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvc.repo import Repo

LOCK_FILE = Path("dvc.lock")
CACHE = Path(".dvc/cache")


def restore_this_stage(name: str) -> list[str]:
    """Do `restore_missing` in the process of stage `name`, which DVC has started; usually without importing DVC."""
    if not (CACHE.exists() and lacks_recorded_outputs(name)):
        return []
    from dvc.repo import Repo

    with Repo() as repo:
        return restore_missing(repo, name)


def lacks_recorded_outputs(name: str) -> bool:
    """Return whether dvc.lock lists an output of stage `name` that does not exist."""
    text = LOCK_FILE.read_text(encoding="utf-8") if LOCK_FILE.exists() else ""
    entry = re.search(rf"^  {re.escape(name)}:\n(?:    .*\n)*", text, re.MULTILINE)
    outputs = entry[0].partition("    outs:\n")[2] if entry else ""
    return any(not Path(path).exists() for path in re.findall(r"^    - path: (.+)$", outputs, re.MULTILINE))


def restore_missing(repo: "Repo", name: str) -> list[str]:
    """Restore the missing outputs of stage `name`, byte for byte as dvc.lock records them, and return their paths.

    Cached outputs come from DVC's cache, the others (metrics) from the last commit. If the stage has changed, no output
    is missing, or not all of them can be restored, nothing is changed and [] is returned.
    """
    from dvc.exceptions import DvcException

    [stage] = repo.stage.collect(name)
    missing = [out for out in stage.outs if not out.exists]
    if not missing or not is_otherwise_unchanged(stage):
        return []
    committed = {out.fs_path: committed_bytes(out.fs_path) for out in missing if not out.use_cache}
    if not all(is_available(out, committed) for out in missing):
        return []
    try:
        for out in missing:
            if out.use_cache:
                out.checkout()
            else:
                write_whole(Path(out.fs_path), committed[out.fs_path] or b"")
    except (DvcException, OSError):  # the stage runs, and reports what is wrong
        return []
    return [out.def_path for out in missing]


def uncached_outputs(repo: "Repo", name: str) -> list[str]:
    """Return the existing outputs of stage `name`, except metrics, of which DVC's cache has no copy.

    A training by hand leaves such outputs, and so does `dvc repro --no-commit`. `receive` only adds to its output.
    """
    if name.partition("@")[0] == "receive":
        return []
    [stage] = repo.stage.collect(name)
    existing = [out for out in stage.outs if out.use_cache and out.exists]
    return [out.def_path for out in existing if not out.cache.exists(out.get_hash().value)]


def is_otherwise_unchanged(stage: Any) -> bool:
    """Return whether the stage's command, dependencies and existing outputs are as dvc.lock records them.

    DVC's own `stage.changed` would wait for the `dvc repro` that has started this stage.
    """
    if stage.is_callback or stage.always_changed or not all(out.hash_info for out in stage.outs):
        return False
    if stage.changed_stage() or any(dep.status() for dep in stage.deps):
        return False
    return not any(out.workspace_status() for out in stage.outs if out.exists)


def is_available(out: Any, committed: dict[str, bytes | None]) -> bool:
    if out.use_cache:
        return not out.changed_cache()
    found = committed[out.fs_path]
    return found is not None and hashlib.md5(found, usedforsecurity=False).hexdigest() == out.hash_info.value


def committed_bytes(path: str) -> bytes | None:
    """Return the content of `path` in the last commit; None outside of git, or if the commit lacks it."""
    folder = next(folder for folder in Path(path).parents if folder.exists())
    command = ["git", "show", f"HEAD:./{Path(path).relative_to(folder).as_posix()}"]
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
