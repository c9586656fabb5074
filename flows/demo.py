"""The whole pipeline on the built-in sample, in the folder demo/ of its own; needs no network.

demo/ gets a copy of the code and of params.yaml with `data.source: sample`, its own DVC repository, and
runs `dvc repro` there. Nothing outside demo/ is touched. A second run runs only what changed.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from config import paths
from config.params import load_params
from flows.command_line import telling_mistakes

DEMO = Path("demo")
CODE = ("config", "datasets", "flows", "models", "tasks")
FILES = ("dvc.yaml", "pyproject.toml")


def copy_workspace(folder: Path) -> None:
    """Copy the code and the parameters into `folder`, which keeps what earlier runs left in it."""
    for name in CODE:
        shutil.rmtree(folder / name, ignore_errors=True)
        shutil.copytree(name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(name, folder)
    yaml = YAML()
    values = yaml.load(paths.PARAMS)
    values["data"]["source"] = "sample"
    yaml.dump(values, folder / paths.PARAMS)


def main() -> int:
    with telling_mistakes():
        load_params()
        return run_demo()


def run_demo() -> int:
    DEMO.mkdir(exist_ok=True)
    copy_workspace(DEMO)
    dvc = [sys.executable, "-m", "dvc"]
    if not (DEMO / ".dvc").exists():
        subprocess.run([*dvc, "init", "--quiet", "--no-scm"], cwd=DEMO, check=True)
        for option in ("core.analytics", "core.check_update"):
            subprocess.run([*dvc, "config", option, "false"], cwd=DEMO, check=True)
    code = subprocess.run([*dvc, "repro"], cwd=DEMO, check=False).returncode
    if code == 0:
        print(f"\nThe report on the sample is {DEMO / paths.REPORTS / 'index.html'}.")
    return code


if __name__ == "__main__":
    sys.exit(main())
