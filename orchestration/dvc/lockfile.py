"""Write the entry of one stage into dvc.lock, without parsing and dumping all others.

For each stage DVC parses the whole file with a parser that keeps comments, and dumps it again: 0.9 s with 30 stages,
during which no other stage can be recorded. The file written here has the same bytes.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.dvcfile import Lockfile
from dvc.repo import Repo
from dvc.stage.serialize import to_lockfile
from dvc.utils.serialize import dumps_yaml, loads_yaml
from ruamel.yaml.error import YAMLError

from config import paths
from runtime.atomic_outputs import write_text as write
from runtime.disk import refuse_unless_file
from runtime.errors import UserError

LOCK_FILE = "dvc.lock"
HEAD = "schema: '2.0'\nstages:\n"
BEGIN = re.compile(r"^(?=  \S)", re.MULTILINE)
ENTRY = re.compile(r"  [^\s#].*:\n(?:    (?!\s*#).*\n|\n)+")

dump_whole_file = Lockfile.dump_stages  # of DVC


def dump_stages(lockfile: Lockfile, stages: list[Any], **kwargs: Any) -> None:
    """Stand in for `Lockfile.dump_stages`."""
    path = Path(lockfile.path)
    refuse_unless_file(path)
    changed: dict[str, Any] = {}
    for stage in stages:
        changed |= to_lockfile(stage, **kwargs)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    after = merge(before, changed)
    if after is None:
        with restored_on_error(path, before):
            dump_whole_file(lockfile, stages, **kwargs)
            refuse_unreadable(path.read_text(encoding="utf-8"), changed)
    elif after != before:
        known = entries(after) or {}
        refuse_unreadable(HEAD + "".join(known[line] for line in known if stage_of(line) in changed), changed)
        write(path, after)
        lockfile.repo.scm_context.track_file(lockfile.relpath)


@contextmanager
def restored_on_error(path: Path, before: str) -> Iterator[None]:
    """Restore the lock file, whose text was `before`, if the block raises."""
    try:
        yield
    except BaseException:
        write(path, before) if before else path.unlink(missing_ok=True)
        raise


def refuse_unreadable(text: str, changed: dict[str, Any]) -> None:
    """Raise UserError, naming stage and key, unless DVC reads the `changed` entries from `text` as they are."""
    try:
        found = (loads_yaml(text) or {}).get("stages", {})
    except YAMLError as error:
        stage = next((name for name, entry in changed.items() if not reads_back({name: entry})), next(iter(changed)))
        key = next((f"{key}: " for key, value in flat(changed[stage]) if not reads_back({key: value})), "")
        raise UserError(unreadable(f"{stage}: {key}{' '.join(str(error).split())}")) from None
    for stage, entry in changed.items():
        if fault := difference(entry, found.get(stage), stage):
            raise UserError(unreadable(fault))


def unreadable(fault: str) -> str:
    return (
        f"DVC cannot write this into {LOCK_FILE} so that it reads it back, and {LOCK_FILE} is as it was: {fault}. "
        f"Give another name or value in {paths.PARAMS} or dvc.yaml."
    )


def reads_back(values: dict[Any, Any]) -> bool:
    try:
        return difference(values, loads_yaml(dumps_yaml({"schema": "2.0", "stages": values}))["stages"], "") is None
    except YAMLError:
        return False


def flat(values: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each key in `values` with its value, the innermost first."""
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        if isinstance(value, dict | list):
            yield from flat(value)
        yield key, value


def difference(wanted: Any, found: Any, key: str) -> str | None:
    """Compare two values.

    Args:
        wanted: what was written.
        found: what was read back.
        key: of both, for the message.

    Returns:
        In words, where they differ; None if they are the same.
    """
    if isinstance(wanted, dict) and isinstance(found, dict):
        for name in [*wanted, *(name for name in found if name not in wanted)]:
            if name not in wanted or name not in found:
                return f"{key}: {name!r} is {'added' if name in found else 'lost'}"
            if fault := difference(wanted[name], found[name], f"{key}: {name}"):
                return fault
        return None
    if isinstance(wanted, list | tuple) and isinstance(found, list):
        pairs = zip(wanted, found, strict=False)
        fault = next((fault for one, other in pairs if (fault := difference(one, other, key))), None)
        return fault or (f"{key} has another length" if len(wanted) != len(found) else None)
    same = wanted == found or (wanted != wanted and found != found)  # the second: both are NaN
    return None if same and isinstance(wanted, bool) == isinstance(found, bool) else f"{key} becomes {found!r}"


def merge(text: str, changed: dict[str, Any]) -> str | None:
    """Return the lock file `text` with `changed` entries replaced or added; None if DVC would write it otherwise."""
    known, fresh = entries(text), entries(dumps_yaml({"schema": "2.0", "stages": changed}))
    if known is None or fresh is None:
        return None
    return HEAD + "".join({**known, **fresh}.values())


def entries(text: str) -> dict[str, str] | None:
    """Return the text of each stage's entry by its first line, in the file's order.

    Returns None for an empty file, and if it holds more than stages, such as comments, or another schema.
    """
    head, *found = BEGIN.split(text)
    if head != HEAD or not all(map(ENTRY.fullmatch, found)):
        return None
    return {entry.partition("\n")[0]: entry for entry in found}


def put_in_order(order: list[str], before: list[str]) -> None:
    """Sort dvc.lock as `dvc repro` would have written it: the stages of `before`, then the rest by `order`."""
    path = Path(LOCK_FILE)
    refuse_unless_file(path)
    if not path.exists():
        return
    places = {name: place for place, name in enumerate([*before, *(name for name in order if name not in before)])}
    with Repo(_wait_for_lock=True) as repo, repo.lock:
        if known := entries(path.read_text(encoding="utf-8")):
            lines = sorted(known, key=lambda line: places.get(stage_of(line), len(places)))
            write(path, HEAD + "".join(known[line] for line in lines))


def locked_stages() -> list[str]:
    """Return the stages of dvc.lock in its order; raises UserError if it cannot be read."""
    path = Path(LOCK_FILE)
    refuse_unless_file(path)
    if not path.exists():
        return []
    try:
        return [*(loads_yaml(path.read_text(encoding="utf-8")) or {}).get("stages", {})]
    except (YAMLError, ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"{LOCK_FILE} cannot be read ({' '.join(str(error).split())}). Restore it from git: "
            f"`git checkout {LOCK_FILE}`, or move it away; DVC then runs the stages again or takes them from its cache."
        ) from None


def stage_of(line: str) -> str:
    """Return the name of the stage whose entry begins with `line`."""
    return next(iter(loads_yaml(line)))
