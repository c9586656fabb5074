"""Put the winner of a search into params.yaml."""

import difflib
import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from config import paths
from config.params import load_params, parse_params
from config.search import PREPARATION, RECIPE
from runtime.atomic_outputs import write_text
from runtime.disk import refuse_unless_file
from runtime.errors import UserError
from tasks.data.files import missing
from tasks.search.results import BEST

WIDTH = 4096  # of a line: none is broken


def read_winner(model: str) -> dict[str, Any]:
    """Return build, compile, fit, and preparation where it was searched, of the winner.

    Raises UserError where there is none, or the file is damaged.
    """
    path, stage = paths.search_folder(model) / BEST, f"search@{model}"
    refuse_unless_file(path)
    try:
        found = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise missing(path, stage) from None
    except (OSError, ValueError, YAMLError):
        found = None
    if not isinstance(found, dict) or not set(RECIPE) <= found.keys() <= {*RECIPE, PREPARATION}:
        raise UserError(f"{path} holds no recipe. Run `dvc repro --force {stage}`.")
    return found


def with_winner(text: str, model: str, winner: dict[str, Any]) -> str:
    """Return the text of params.yaml with the recipe of a winner in it; comments and other sections stay.

    Args:
        text: of params.yaml.
        model: which gets the recipe.
        winner: of `read_winner`.
    """
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    params = yaml.load(text)
    recipe = params["models"][model]
    for section in RECIPE:
        if winner[section] or section in recipe:
            recipe[section] = merged(recipe.get(section), winner[section])
    params["datasets"][recipe["dataset"]].update(winner.get(PREPARATION, {}))
    stream = io.StringIO()
    yaml.dump(params, stream)
    return stream.getvalue()


def merged(old: Any, new: Any) -> Any:
    """Return `new` in the style of `old`: of a mapping, what is equal keeps its place, its comments and its style."""
    if isinstance(old, CommentedMap) and isinstance(new, dict):
        for key in [key for key in old if key not in new]:
            del old[key]
        for key, value in new.items():
            old[key] = merged(old.get(key), value)
        return old
    if old == new and type(old) is not bool:
        return old
    if isinstance(new, dict | list):
        styled = CommentedMap(new) if isinstance(new, dict) else CommentedSeq(new)
        styled.fa.set_flow_style()
        return styled
    return new


def difference(model: str) -> tuple[str, str]:
    """Return the text of params.yaml with the winner of a search in it, and how it differs from the file.

    Raises UserError where there is no winner, or its recipe is not valid here any more.
    """
    load_params()
    before = paths.PARAMS.read_text(encoding="utf-8")
    after = with_winner(before, model, read_winner(model))
    parse_params(after, Path(paths.PARAMS))
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), str(paths.PARAMS), str(paths.PARAMS), lineterm=""
    )
    return after, "\n".join(lines)


def others_affected(model: str) -> list[str]:
    """Return the other models whose data a preparation that was searched changes, too."""
    if not read_winner(model).get(PREPARATION):
        return []
    params = load_params()
    dataset = params.model(model).dataset
    return [name for name, recipe in params.models.items() if recipe.dataset == dataset and name != model]


def write_params(text: str) -> None:
    write_text(paths.PARAMS, text)
