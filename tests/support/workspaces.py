"""Workspaces for tests: the code with parameters for the sample, as plain folders and as git and DVC repositories."""

import copy
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from functools import cache, lru_cache
from pathlib import Path

from filelock import FileLock
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
# Of each kind the quickest: several inputs, several outputs, subclassed, convolutional, ...
FEW_MODELS = (
    "linear_neuron",
    "iris_perceptron",
    "iris_mlp",
    "housing_mlp",
    "housing_wide_deep_aux",
    "housing_wide_deep_subclassed",
    "fashion_mlp",
    "multi_input_cnn",
)
TWO_MODELS = ("linear_neuron", "iris_mlp")
FEW_LECTURE_RECIPES = ("housing_mlp", "housing_wide_deep_aux")
DVC = [sys.executable, "-m", "dvc"]
PIPELINE = [sys.executable, "-m", "flows.pipeline"]
# The database that new workspaces begin with, as soon as a test needs a server.
MIGRATED: list[Path] = []
SAVE = (["git", "add", "."], ["git", "commit", "--quiet", "-m", "a state"])


@lru_cache(maxsize=4)
def parse(text: str) -> dict:
    """Return the values and comments of `text`; a caller copies them before it changes them."""
    return YAML().load(text)


def edit_params(folder: Path, **values: object) -> None:
    """Set dotted keys of `folder/params.yaml`; a double underscore stands for the dot."""
    file = folder / "params.yaml"
    file.write_text(edited(file.read_text(), values))


def edited(text: str, values: dict[str, object]) -> str:
    """Return the YAML `text` with its dotted keys set as `values` says."""
    params = copy.deepcopy(parse(text))
    for dotted, value in values.items():
        *sections, key = dotted.split("__")
        section = params
        for name in sections:
            section = section[name]
        section[key] = value
    return dumped(params)


def dumped(params: dict) -> str:
    stream = io.StringIO()
    YAML().dump(params, stream)
    return stream.getvalue()


@cache
def short_params() -> str:
    """Return params.yaml for the sample, with one epoch for each model and one run for each lecture recipe.

    No model is exported as LiteRT or ONNX, which takes as long as such a training, and nothing is searched.
    """
    text = (ROOT / "params.yaml").read_text()
    params = parse(text)
    short: dict[str, object] = {}
    for name in params["models"]:
        short |= {f"models__{name}__fit__epochs": 1, f"models__{name}__export": []}
        if seeds := params["models"][name].get("seeds"):
            short[f"models__{name}__seeds"] = seeds[:2]
    for name in params["lecture_recipes"]:
        short |= {f"lecture_recipes__{name}__fit__epochs": 1, f"lecture_recipes__{name}__seeds": [42]}
    for dataset, gates in params["gates"].items():  # thresholds for the real rows and whole trainings
        short |= {f"gates__{dataset}__models__{name}__absolute": {} for name in gates.get("models", {})}
    return edited(text, {"data__source": "sample", "search": {}, **short})


def make_workspace(folder: Path) -> Path:
    """Copy the code into `folder`, compiled where it is here, with parameters for the sample and short trainings."""
    from flows.demo import FILES
    from runtime.packages import PACKAGES

    folder.mkdir(parents=True, exist_ok=True)
    for name in PACKAGES:
        # Another worker may be writing *.pyc.NUMBER.
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.pyc.*"))
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    (folder / "params.yaml").write_text(short_params())
    if MIGRATED:
        (folder / ".prefect").mkdir(mode=0o700)
        shutil.copy(MIGRATED[0], folder / ".prefect")
    return folder


def migrate(folder: Path) -> None:
    """Make `folder` with an empty database of Prefect's newest schema, which takes longer than a server's start."""
    folder.mkdir()
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
    subprocess.run(command, cwd=folder, env={**own, "PREFECT_HOME": "."}, capture_output=True, check=True)


def put_in(folder: Path, old: str, new: str) -> None:
    """Replace a text in `folder/params.yaml` as a person does; what writes YAML would break a long key itself."""
    file = folder / "params.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def keep_only(folder: Path, models: Collection[str]) -> None:
    """Leave these models, and what belongs to them, in `folder/params.yaml`."""
    params = copy.deepcopy(parse((folder / "params.yaml").read_text()))
    for section, kept in (
        ("models", models),
        ("notes", models),
        ("lecture_recipes", {*FEW_LECTURE_RECIPES} & {*models}),
    ):
        for name in [*params[section]]:
            if name not in kept:
                del params[section][name]
    used = {recipe["dataset"] for recipe in params["models"].values()}
    for name in {*params["datasets"]} - used:
        del params["datasets"][name]
    for name in [name for name, baseline in params["baselines"].items() if baseline["dataset"] not in used]:
        del params["baselines"][name]
    params["gates"] = {name: gates for name, gates in params["gates"].items() if name in used}
    for gates in params["gates"].values():
        gates["models"] = {name: own for name, own in gates.get("models", {}).items() if name in models}
    (folder / "params.yaml").write_text(dumped(params))


def make_repository(
    folder: Path,
    settings: dict[str, str],
    command: list[str],
    models: Collection[str],
    formats: Collection[str] = (),
    change: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Make `folder` a git and DVC repository, run `command` there, and commit; what it printed is in run.log.

    Args:
        folder: it must not exist.
        settings: the environment of the command.
        command: what is run.
        models: those of params.yaml that are kept.
        formats: that they are exported in, besides the SavedModel.
        change: what else is changed before the command runs.
    """
    make_workspace(folder)
    keep_only(folder, models)
    edit_params(folder, **{f"models__{name}__export": [*formats] for name in models})
    change(folder)
    for name in (".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    for words in (["git", "init", "--quiet"], [*DVC, "init", "--quiet"]):
        subprocess.run(words, cwd=folder, env=settings, check=True)
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc")
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots")
    commit(folder, settings)
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder / "run.log").write_text(done.stdout + done.stderr)
    commit(folder, settings)


def commit(folder: Path, settings: dict[str, str]) -> None:
    for words in SAVE:
        subprocess.run(words, cwd=folder, env=settings, check=True)


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return `folder`, which the first worker that asks for it builds while the others wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = folder.with_name(f"{folder.name}.done")
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a build that failed
            build(folder)
            done.touch()
    return folder


def clone(built: Path, folder: Path) -> Path:
    """Copy a workspace with its git and DVC repositories: nothing in it names the place where it lies."""
    shutil.copytree(built, folder, symlinks=True, ignore=shutil.ignore_patterns("*.pyc.*"))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below `folder`, by path."""
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
