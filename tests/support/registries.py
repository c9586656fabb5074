"""Small git repositories whose commits hold what a version of a model needs, but no files of DVC."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

MODELS = ("iris_mlp", "linear_neuron")
AUTHOR = {f"GIT_{role}_{what}": "Ada" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def run_git(folder: Path, *words: str, **variables: str) -> str:
    environment = {**os.environ, **AUTHOR, **variables}
    done = subprocess.run(
        ["git", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def make_registry(folder: Path, commits: int) -> Path:
    """Make a repository with as many commits that can be versions."""
    folder.mkdir()
    run_git(folder, "init", "--quiet")
    (folder / "params.yaml").write_text("models: {{{}}}\n".format(", ".join(f"{model}: {{}}" for model in MODELS)))
    (folder / "dvc.lock").write_text("".join(f"    - path: artifacts/{model}/saved_model\n" for model in MODELS))
    for number in range(1, commits + 1):
        for model in MODELS:
            (folder / f"artifacts/{model}").mkdir(parents=True, exist_ok=True)
            (folder / f"artifacts/{model}/metrics.json").write_text(f"{number}")
        run_git(folder, "add", ".")
        run_git(folder, "commit", "--quiet", "-m", f"{number}")
    return folder


def commit_of(folder: Path, number: int) -> str:
    """Return the hash of a commit of `make_registry`, counted from 1."""
    return run_git(folder, "rev-list", "--topo-order", "--reverse", "--branches").splitlines()[number - 1]


def champion_of_gto(model: str) -> str | None:
    """Return the version that GTO shows as the champion in the current folder."""
    from gto import api

    state = api.show(".")
    return state[model]["stage"].get("champion") if model in state else None


def champion_of_dvc(model: str) -> str:
    """Return the commit from which `dvc artifacts get . MODEL --stage champion` would take the model."""
    from dvc.repo.artifacts import Artifacts
    from dvc.scm import Git

    git = Git(".")
    try:
        return Artifacts(SimpleNamespace(scm=git)).get_rev(model, stage="champion")
    finally:
        git.close()
