"""A workspace of its own for a run that must leave the user's files, branch and index alone.

It is a git worktree of the user's last commit, on no branch, that shares DVC's cache. It is kept between runs, so that
a run trains only what has changed since the one before. A git reference keeps that run's commit, whose dvc.lock the
next run begins with, unless the user has committed another dvc.lock meanwhile.
"""

import os
import shutil
from pathlib import Path

from config import paths
from orchestration.dvc.graph import open_repo
from orchestration.dvc.lockfile import LOCK_FILE
from orchestration.git import GitError
from orchestration.git import git as run_git
from runtime.errors import UserError

FOLDER = paths.RETRAIN / "workspace"
# The commit of the last run in the worktree.
LAST = "refs/heaviside/retrain"
# What a run changes of the files that git keeps.
RESULTS = (LOCK_FILE, "artifacts", "reports")
# Not the user's hooks, and no signature for which git would ask a passphrase: nobody is watching. No log of where the
# worktree has been, either: it would keep the commits of nights that promoted nothing.
UNATTENDED = tuple(
    word
    for setting in (f"core.hooksPath={os.devnull}", "commit.gpgSign=false", "gc.auto=0", "core.logAllRefUpdates=false")
    for word in ("-c", setting)
)
SOMEBODY = {"user.name": "Heaviside", "user.email": "heaviside@localhost"}


def open_worktree() -> Path:
    """Make the worktree one of the user's last commit, with the results of the last run in it, and return its folder.

    The caller holds the workspace's lock. Raises UserError without git or a commit.
    """
    head = last_commit()
    place = Path(git("rev-parse", "--git-dir"), "worktrees")
    root, inside = FOLDER.absolute(), git("rev-parse", "--show-prefix")
    if not is_worktree(root):
        shutil.rmtree(root, ignore_errors=True)
        git("worktree", "prune")
        root.parent.mkdir(parents=True, exist_ok=True)
        git("worktree", "add", "--force", "--detach", "--no-checkout", str(root), head)
    for lock in place.glob("*/index.lock"):  # of a run that was killed: nobody else works there
        if Path((lock.parent / "gitdir").read_text().strip()).parent == root:
            lock.unlink(missing_ok=True)
    git("checkout", "--quiet", "--force", "--detach", head, folder=root)
    folder = root / inside
    share_cache(folder)
    if last := resolve(LAST):
        base = resolve(f"{last}^")
        same = base and not differs(base, head, LOCK_FILE)
        if same:
            kept = [name for name in RESULTS if git("ls-tree", "-r", "--name-only", last, "--", name, folder=folder)]
            git("checkout", "--quiet", last, "--", *kept, folder=folder)
            git("reset", "--quiet", folder=folder)
    return folder


def is_worktree(root: Path) -> bool:
    """Return whether `root` is a worktree that git knows."""
    known = git("worktree", "list", "--porcelain", "-z").split("\0")
    return (root / ".git").is_file() and f"worktree {root.resolve()}" in known


def share_cache(folder: Path) -> None:
    """Give the worktree the user's own settings of DVC, such as a remote's password, and the user's cache."""
    from dvc.config import Config

    with open_repo() as repo:
        cache = repo.cache.local_cache_dir
        own = Path(repo.dvc_dir, Config.CONFIG_LOCAL)
    given = folder / ".dvc" / Config.CONFIG_LOCAL
    if own.is_file():
        shutil.copy(own, given)
    with Config(str(folder / ".dvc"), local_dvc_dir=str(folder / ".dvc")).edit("local") as config:
        config.setdefault("cache", {})["dir"] = cache


def commit_worktree(folder: Path, message: str) -> str:
    """Commit what a run in the worktree has changed of the files that git keeps, and return the commit.

    Args:
        folder: the worktree.
        message: of the commit.

    Returns:
        The new commit, or the last one if nothing has changed.
    """
    kept = [name for name in RESULTS if (folder / name).exists()]
    git("add", "--all", "--", *kept, folder=folder)
    if git("diff", "--cached", "--name-only", folder=folder):
        git(*identity(), "commit", "--quiet", "--no-verify", "--message", message, folder=folder)
    commit = git("rev-parse", "HEAD", folder=folder)
    git("update-ref", LAST, commit)
    return commit


def identity() -> list[str]:
    """Return options that name an author to git where the user has named none."""
    return [
        word
        for key, value in SOMEBODY.items()
        if not git("config", "--get", key, check=False)
        for word in ("-c", f"{key}={value}")
    ]


def last_commit() -> str:
    """Return the user's last commit; raises UserError without one."""
    with open_repo() as repo:
        without_git = type(repo.scm).__name__ == "NoSCM"
    head = None if without_git else resolve("HEAD")
    if not head:
        raise UserError(
            "`retrain` keeps each night's models in git, and there is no commit yet: run `git init`, `git add .` and "
            "`git commit` first. Without git, start `pipeline` instead."
        )
    return head


def resolve(name: str) -> str | None:
    """Return the commit that a name stands for; None if it stands for none."""
    return git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", check=False) or None


def differs(one: str, other: str, path: str) -> bool:
    """Return whether a file differs between two commits."""
    return bool(git("diff", "--name-only", one, other, "--", path))


def uncommitted() -> list[str]:
    """Return the files of the user that differ from the last commit, and that a run in the worktree so does not see."""
    return git("status", "--porcelain", "--untracked-files=no").splitlines()


def git(*words: str, folder: Path | None = None, check: bool = True) -> str:
    """Run git and return what it prints; raises UserError, with git's reason, if it fails.

    Args:
        words: of the command.
        folder: where; None: here.
        check: return "" instead of raising.
    """
    try:
        return run_git("-C", str(folder or "."), *UNATTENDED, *words).strip()
    except GitError:
        if check:
            raise
        return ""
