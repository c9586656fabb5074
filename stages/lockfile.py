"""dvc.lock as text: the entry of a stage is written without parsing and dumping those of all others.

For each stage DVC parses the whole file with a parser that keeps comments, and dumps it again: 0.9 s where there are 30
stages, during which no other stage can be recorded. What is written here is the same, to the byte.
"""

import re
from pathlib import Path
from typing import Any

from dvc.dvcfile import Lockfile
from dvc.repo import Repo
from dvc.stage.serialize import to_lockfile
from dvc.utils.serialize import dumps_yaml, loads_yaml

from config import paths

LOCK_FILE = "dvc.lock"
HEAD = "schema: '2.0'\nstages:\n"
BEGIN = re.compile(r"^(?=  \S)", re.MULTILINE)
ENTRY = re.compile(r"  [^\s#].*:\n(?:    (?!\s*#).*\n|\n)+")

dump_whole = Lockfile.dump_stages  # DVC's own way


def dump_stages(lockfile: Lockfile, stages: list[Any], **kwargs: Any) -> None:
    """Stand in for `Lockfile.dump_stages`."""
    path = Path(lockfile.path)
    changed: dict[str, Any] = {}
    for stage in stages:
        changed |= to_lockfile(stage, **kwargs)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    after = merge(before, changed)
    if after is None:
        dump_whole(lockfile, stages, **kwargs)
    elif after != before:
        write(path, after)
        lockfile.repo.scm_context.track_file(lockfile.relpath)


def merge(text: str, changed: dict[str, Any]) -> str | None:
    """Return the lock file with the entries of some stages changed or added; None where DVC would not write it so."""
    known, fresh = entries(text), entries(dumps_yaml({"schema": "2.0", "stages": changed}))
    if known is None or fresh is None:
        return None
    return HEAD + "".join({**known, **fresh}.values())


def entries(text: str) -> dict[str, str] | None:
    """Return the text of each stage's entry by its first line, in their order.

    None where there is more than stages, such as comments or another schema, and where there is nothing.
    """
    head, *found = BEGIN.split(text)
    if head != HEAD or not all(map(ENTRY.fullmatch, found)):
        return None
    return {entry.partition("\n")[0]: entry for entry in found}


def put_in_order(order: list[str], before: list[str]) -> None:
    """Have dvc.lock list its stages as one `dvc repro` would have written them: those of `before`, then by `order`."""
    path = Path(LOCK_FILE)
    if not path.exists():
        return
    places = {name: place for place, name in enumerate([*before, *(name for name in order if name not in before)])}
    with Repo(_wait_for_lock=True) as repo, repo.lock:
        if known := entries(path.read_text(encoding="utf-8")):
            lines = sorted(known, key=lambda line: places.get(stage_of(line), len(places)))
            write(path, HEAD + "".join(known[line] for line in lines))


def locked_stages() -> list[str]:
    """Return the stages that dvc.lock lists, in its order."""
    path = Path(LOCK_FILE)
    return [*loads_yaml(path.read_text(encoding="utf-8")).get("stages", {})] if path.exists() else []


def stage_of(line: str) -> str:
    """Return the name of the stage whose entry begins with `line`."""
    return next(iter(loads_yaml(line)))


def write(path: Path, text: str) -> None:
    """Replace the file whole."""
    paths.STAGING.mkdir(exist_ok=True)
    partial = paths.STAGING / path.name
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
