"""The whole pipeline on the built-in sample, in the folder demo/; needs no network.

demo/ gets a copy of the code, params.yaml with `data.source: sample` and short trainings, and a DVC repository of its
own. The pipeline flow runs there. Nothing outside demo/ is touched. A second run runs only what changed.
"""

import shutil
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from config import paths
from config.params import load_params
from flows.metrics import show_metrics
from orchestration.command_line import exit_on_user_error, run_in_foreground
from orchestration.workspace_lock import refuse_unusable_folders
from runtime.disk import refuse_unwritable
from runtime.errors import UserError
from runtime.packages import PACKAGES

DEMO = Path("demo")
FILES = (".dvcignore", "dvc.yaml", "pyproject.toml")
# The file that marks a folder as made here.
MARK = ".heaviside-workspace"
MAX_EPOCHS = 5
MAX_TRIALS = 4  # of the one search
DVC = [sys.executable, "-m", "dvc"]


def copy_workspace(folder: Path) -> None:
    """Copy the code and the parameters into `folder`, which keeps the results of earlier runs."""
    for name in PACKAGES:
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(name, folder)
    yaml = YAML()
    values = yaml.load(paths.PARAMS)
    values["data"]["source"] = "sample"
    yaml.dump(values, folder / paths.PARAMS)


def shorten(params: Path, epochs: int) -> None:
    """Limit every training of `params` to `epochs`, which are enough for the small data of the sample."""
    yaml = YAML()
    values = yaml.load(params)
    searches = values.get("search", {})
    for name in [*searches][1:]:
        del searches[name]
    for recipe in (*values["models"].values(), *values.get("lecture_recipes", {}).values(), *searches.values()):
        if "epochs" in recipe.get("fit", {}):  # a search may vary them
            recipe["fit"]["epochs"] = min(recipe["fit"]["epochs"], epochs)
        recipe["compile"].pop("average", None)  # it averages over thousands of steps, more than there are
    for model in values["models"].values():
        if "seeds" in model:
            model["seeds"] = model["seeds"][:2]
    for recipe in values.get("lecture_recipes", {}).values():
        recipe["seeds"] = recipe["seeds"][:1]
    for search in searches.values():
        search["trials"] = min(search["trials"], MAX_TRIALS)
        search["finalists"], search["seeds"] = 1, [42]
    yaml.dump(values, params)


def make_workspace(folder: Path, epochs: int) -> None:
    """Make `folder` a workspace on the sample with a DVC repository of its own; an earlier one keeps its results.

    Raises UserError if `folder` holds something else.
    """
    refuse_unwritable(folder)
    if folder.exists() and any(folder.iterdir()) and not is_workspace(folder):
        raise UserError(
            f"{folder} holds other files than a workspace of this project, whose code would replace those of the same "
            "names. Move it away, or empty it, and run again."
        )
    folder.mkdir(exist_ok=True)
    (folder / MARK).touch()
    copy_workspace(folder)
    shorten(folder / paths.PARAMS, epochs)
    if not (folder / ".dvc").exists():
        subprocess.run([*DVC, "init", "--quiet", "--no-scm"], cwd=folder, check=True)
        for option in ("core.analytics", "core.check_update"):
            subprocess.run([*DVC, "config", option, "false"], cwd=folder, check=True)


def is_workspace(folder: Path) -> bool:
    """Return whether an earlier run has made `folder`, even an unfinished one."""
    try:
        params = YAML(typ="safe").load(folder / paths.PARAMS)
    except (OSError, YAMLError):
        params = None
    return (folder / MARK).exists() or (isinstance(params, dict) and {"datasets", "models"} <= params.keys())


def main() -> int:
    with exit_on_user_error():
        refuse_unusable_folders()
        load_params()
        return run_demo()


def run_demo() -> int:
    make_workspace(DEMO, MAX_EPOCHS)
    code = run_in_foreground([sys.executable, "-m", "flows.pipeline"], DEMO)
    if code == 0:
        with chdir(DEMO):
            show_metrics()
        print(f"The report on the sample: {(DEMO / paths.REPORTS / 'index.html').resolve().as_uri()}")
    return code


if __name__ == "__main__":
    sys.exit(main())
