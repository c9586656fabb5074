"""The workspace of `retrain`: it leaves the user's alone, and begins where the last run ended."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestration import worktree
from runtime.errors import UserError
from tests.support.workspaces import DVC, ROOT, contents, edit_params

MODEL = "artifacts/iris_mlp/model.keras"
OLD, NEW = "artifacts/iris_mlp/metrics.json", '{"a": 1}'


@pytest.fixture
def git(small, environment, monkeypatch) -> Callable[..., str]:
    """Run git in a trained workspace, which is the current directory."""
    monkeypatch.chdir(small)
    for name in (".gitignore", ".dvcignore"):
        assert (small / name).read_bytes() == (ROOT / name).read_bytes()
    for name in ("HOME", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, environment[name])

    def run(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout.strip()

    return run


def state(git: Callable[..., str]) -> tuple[object, ...]:
    """Return what a run in the worktree must not touch: branch, index and files of the user."""
    own = (".git/", ".dvc/", ".retrain/")
    files = {name: data for name, data in contents(Path()).items() if not name.startswith(own)}
    return git("status", "--porcelain"), git("symbolic-ref", "HEAD"), git("rev-parse", "HEAD"), files


def in_dvc(folder: Path, *words: str) -> str:
    done = subprocess.run([*DVC, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_has_the_last_commit_and_the_cache_of_the_users_workspace(git, small):
    edit_params(small, seed=7)  # not committed
    before = state(git)
    folder = worktree.open_worktree()
    assert "seed: 42" in (folder / "params.yaml").read_text()
    assert worktree.uncommitted() == ["M params.yaml"]
    in_dvc(folder, "checkout")
    assert "up to date" in in_dvc(folder, "status")
    assert (folder / MODEL).read_bytes() == (small / MODEL).read_bytes()
    assert state(git) == before


def test_a_run_begins_with_the_results_of_the_last_one(git, small):
    before = state(git)
    folder = worktree.open_worktree()
    (folder / OLD).write_text(NEW)
    lock = (folder / "dvc.lock").read_text() + "# of last night\n"
    (folder / "dvc.lock").write_text(lock)
    commit = worktree.commit_worktree(folder, "Retrain")
    assert git("rev-parse", f"{commit}^") == git("rev-parse", "HEAD")
    assert worktree.commit_worktree(folder, "Retrain") == commit  # nothing new, no commit
    shutil.rmtree(folder)  # a person tidies up
    folder = worktree.open_worktree()
    assert (folder / OLD).read_text() == NEW
    assert (folder / "dvc.lock").read_text() == lock
    assert state(git) == before


def test_results_that_the_user_commits_take_the_place_of_the_last_runs(git, small):
    folder = worktree.open_worktree()
    (folder / "dvc.lock").write_text((folder / "dvc.lock").read_text() + "# of last night\n")
    worktree.commit_worktree(folder, "Retrain")
    (small / "dvc.lock").write_text((small / "dvc.lock").read_text() + "# of the user\n")
    git("commit", "--quiet", "--all", "--message", "results of mine")
    folder = worktree.open_worktree()
    assert (folder / "dvc.lock").read_text().endswith("# of the user\n")


def test_what_a_killed_run_leaves_is_no_obstacle(git, small):
    folder = worktree.open_worktree()
    (folder / "params.yaml").write_text("half a fi")
    (folder / "tasks/left.py").write_text("")
    place = Path(git("-C", str(folder), "rev-parse", "--git-dir"))
    (place / "index.lock").touch()
    folder = worktree.open_worktree()
    assert (folder / "params.yaml").read_bytes() == (small / "params.yaml").read_bytes()
    shutil.rmtree(place)  # git does not know it any more
    assert (worktree.open_worktree() / "params.yaml").read_bytes() == (small / "params.yaml").read_bytes()


def test_a_detached_head_and_no_identity_are_enough(git, small, monkeypatch):
    for role in ("AUTHOR", "COMMITTER"):
        for what in ("NAME", "EMAIL"):
            monkeypatch.delenv(f"GIT_{role}_{what}")
    git("checkout", "--quiet", "--detach")
    folder = worktree.open_worktree()
    (folder / OLD).write_text(NEW)
    commit = worktree.commit_worktree(folder, "Retrain")
    assert git("log", "-1", "--format=%an", commit) == "Heaviside"
    assert git("status", "--porcelain") == ""


def test_without_git_or_a_commit_it_says_what_to_do(small, monkeypatch):
    monkeypatch.chdir(small)
    shutil.rmtree(".git")
    subprocess.run(["git", "init", "--quiet"], check=True)
    with pytest.raises(UserError, match="there is no commit yet: run `git init`"):
        worktree.open_worktree()
    subprocess.run([*DVC, "config", "core.no_scm", "true"], check=True)
    with pytest.raises(UserError, match="start `pipeline` instead"):
        worktree.open_worktree()
