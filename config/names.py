"""The names that the files of datasets/ and models/ define, read from their text without importing them.

So params.yaml can be checked against the code at once, without Keras. The functions return None if the text alone does
not say, for example if a dictionary is extended later.
"""

import ast
from functools import lru_cache
from pathlib import Path

# Arguments of a family's `build` that params.yaml does not have.
GIVEN_BY_CODE = ("inputs", "name", "train_rows")


@lru_cache(maxsize=128)
def parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):  # whoever imports the file reports it
        return None


def read_module(file: Path) -> ast.Module | None:
    try:
        return parsed(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def dataset_files(root: Path) -> list[str]:
    """Return the names of the data sets that have a file in `root`/datasets; none if there is no such folder."""
    return sorted(file.stem for file in (root / "datasets").glob("*.py") if file.stem not in ("__init__", "dataset"))


def families(root: Path) -> list[str]:
    """Return the families: the files of `root`/models that define `build`; none if there is no such folder."""
    return sorted(file.stem for file in (root / "models").glob("*.py") if defines_build(read_module(file)))


def defines_build(module: ast.Module | None) -> bool:
    return module is None or any("build" in names_bound(statement) for statement in module.body)


def names_bound(statement: ast.stmt) -> set[str]:
    """Return the names that a statement of a module binds."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def build_arguments(root: Path, family: str) -> dict[str, bool] | None:
    """Return the arguments of the family's `build` that come from params.yaml, and whether each is required."""
    module = read_module(root / "models" / f"{family}.py")
    bound = [statement for statement in module.body if "build" in names_bound(statement)] if module else []
    if len(bound) != 1 or not isinstance(bound[0], ast.FunctionDef) or bound[0].decorator_list:
        return None
    given = bound[0].args
    if given.kwarg or given.vararg:
        return None
    positional = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    required = positional[: len(positional) - len(given.defaults)]
    arguments = {name: name in required for name in positional} | {
        argument.arg: default is None for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    }
    return {name: needed for name, needed in arguments.items() if name not in GIVEN_BY_CODE}


def definitions(root: Path, dictionary: str) -> list[str] | None:
    """Return the keys of `dictionary` in `root`/models/common/features.py, if they are written down as a whole."""
    module = read_module(root / "models/common/features.py")
    return keys_of(module, dictionary) if module else None


@lru_cache(maxsize=8)
def keys_of(module: ast.Module, dictionary: str) -> list[str] | None:
    """Return the keys of a dictionary that is one literal in `module` and never changed there; else None."""
    if any(changes(node, dictionary) for node in ast.walk(module)):
        return None
    for statement in module.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and dictionary in names_bound(statement):
            return text_keys(statement.value)
    return None


def text_keys(value: ast.expr | None) -> list[str] | None:
    keys = value.keys if isinstance(value, ast.Dict) else [None]
    names = [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
    return names if len(names) == len(keys) else None


def changes(node: ast.AST, name: str) -> bool:
    """Return whether `node` may change the dictionary `name`: by an entry, `|=`, or a method."""
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        return is_name(node.value, name)
    if isinstance(node, ast.AugAssign):
        return is_name(node.target, name)
    return isinstance(node, ast.Attribute) and is_name(node.value, name)


def is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
