"""Refuse parameters that DVC could not read back from dvc.lock, before a stage runs.

DVC writes dvc.lock in lines of 80 characters. Some longer texts, such as a key with spaces, it breaks such that it can
no longer read the file or change it. What fits into a line is safe; everything else is tried out.
"""

import math
from collections.abc import Iterator
from typing import Any

WIDTH = 80
# Of the parameters in dvc.lock: they lie below `stages`, the stage, `params` and `params.yaml`.
FIRST_COLUMN = 8
INDENT = 2
MAX_DEPTH = 20
# A stage names its parameters by one to three keys, such as models.iris_mlp.build, which are one key in dvc.lock.
JOINED = (1, 2, 3)
# DVC writes a value on the line of its key or on the next ones.
WRITTEN_BEHIND_A_KEY = (1, {"a": 1})
PLAIN = (str, bool, int, float, type(None))
ESCAPED = str.maketrans(dict.fromkeys("\"'\\", "xx"))  # each takes two characters


class Position(int):
    """An index of a list; a plain int may be a key."""


def refuse_unwritable(values: Any) -> None:
    """Raise ValueError, naming key and reason, if `values`, the content of params.yaml, would damage dvc.lock."""
    for fault in faults(values, (), set()):
        raise ValueError(fault)


def faults(values: Any, path: tuple[Any, ...], seen: set[tuple[int, int]]) -> Iterator[str]:
    """Yield a sentence for each value that dvc.lock cannot hold.

    Args:
        values: a part of params.yaml.
        path: the keys and positions that lead to it.
        seen: the values that were checked, by identity and depth, because an alias of YAML may repeat a value.
    """
    here = ".".join(map(str, path))
    if len(path) > MAX_DEPTH:
        yield f"{shorten(here)}: nested more than {MAX_DEPTH} levels deep"
        return
    if isinstance(values, dict | list):
        if (id(values), len(path)) in seen:
            return
        seen.add((id(values), len(path)))
    if isinstance(values, dict):
        for key, value in values.items():
            if fault := fault_of_key(key, path):
                yield f"{here + ': ' if here else ''}the key {shorten(repr(key))} {fault}"
                return
            yield from faults(value, (*path, key), seen)
    elif isinstance(values, list):
        for number, value in enumerate(values):
            yield from faults(value, (*path, Position(number)), seen)
    elif fault := fault_of_value(values, path):
        yield f"{here}: {fault}, got {shorten(repr(values))}"


def fault_of_key(key: Any, path: tuple[Any, ...]) -> str | None:
    if not isinstance(key, PLAIN):
        return "is neither a text nor a number"
    if isinstance(key, float) and not math.isfinite(key):
        return "is not a finite number"
    if (
        not isinstance(key, str)
        or fits(key, len(path))
        or all(comes_back({key: inner}, path) for inner in WRITTEN_BEHIND_A_KEY)
    ):
        return None
    return "is one that DVC cannot read back from dvc.lock. Give a shorter one, of letters and digits"


def fault_of_value(value: Any, path: tuple[Any, ...]) -> str | None:
    if not isinstance(value, PLAIN):
        return "expected a text, a number, true, false or null (a date needs quotes)"
    if isinstance(value, float) and not math.isfinite(value):
        return "expected a finite number"
    key = str(path[-1]) if path else ""
    if not isinstance(value, str) or fits(key + value, len(path)) or comes_back(value, path):
        return None
    return "DVC cannot read it back from dvc.lock; expected a shorter text, of letters and digits"


def fits(text: str, depth: int) -> bool:
    """Return whether `text`, with quotes and a colon, fits into the rest of a line."""
    return text.isprintable() and FIRST_COLUMN + INDENT * depth + len(text.translate(ESCAPED)) + 6 <= WIDTH


def comes_back(value: Any, path: tuple[Any, ...]) -> bool:
    """Return whether DVC reads `value` back as it was after writing it at its place in dvc.lock."""
    from dvc.utils.serialize import dumps_yaml, loads_yaml  # slow to import, and rarely needed

    for joined in JOINED:
        lock = value
        for step in reversed(path[joined:]):
            lock = [lock] if isinstance(step, Position) else {step: lock}
        lock = {".".join(map(str, path[:joined])): lock} if path else lock
        lock = {"stages": {"stage": {"params": {"params.yaml": lock}}}}
        try:
            if any(loads_yaml(dumps_yaml(lock), typ=kind) != lock for kind in ("safe", "rt")):
                return False
        except Exception:  # noqa: BLE001 - the parser can raise anything
            return False
    return True


def shorten(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}…"
