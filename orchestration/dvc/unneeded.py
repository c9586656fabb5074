"""Remove from DVC's cache what nothing needs any more, and the oldest experiments.

`dvc gc` would read the whole graph of each commit, which takes 0.4 s each, would stop at a commit whose folders are not
in the cache, and would know the newest commit of a branch only. Here a file is needed if its checksum stands in a
dvc.lock or *.dvc of any commit that git can reach (branches, tags, experiments, the stash, `retrain`, what was left
behind lately), of the index, or of a worktree's folder; or in the list of a folder that is needed.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc.repo.experiments.utils import exp_refs, remove_exp_refs

from orchestration.dvc.graph import open_repo
from orchestration.dvc.state import dvc_processes
from orchestration.git import git
from runtime.errors import UserError

# Files of git that name what DVC keeps, at any depth.
NAMING = (":(top)*dvc.lock", ":(top)*.dvc")
# A checksum of DVC's; that of a folder is the checksum of a list of its files.
CHECKSUM = re.compile(r"\b[0-9a-f]{32}(?:\.dir)?\b")
FOLDER = ".dir"
AT_ONCE = 50  # files of git that are in memory at once


def remove_experiments(most: int) -> Iterator[int]:
    """Remove the oldest experiments beyond `most`; yield 0 bytes for each, whose files stay until `remove_files`."""
    latest_first = git("for-each-ref", "--sort=-committerdate", "--format=%(refname)", "refs/exps").splitlines()
    if len(latest_first) <= most:
        return
    with quiet_repo() as repo:
        known = {str(ref): ref for ref in exp_refs(repo.scm)}
        for name in [name for name in latest_first if name in known][most:]:
            remove_exp_refs(repo.scm, [known[name]])
            yield 0


def remove_files(before: float) -> Iterator[int]:
    """Remove the files of DVC's cache that nothing needs and that were made before a time, in seconds since 1970.

    Yields the bytes of each. Raises UserError, with nothing removed, if the cache may be another workspace's, too.
    """
    with quiet_repo() as repo:
        cache = Path(repo.cache.local.path)
        if not cache.resolve().is_relative_to(Path(repo.root_dir).resolve()):
            raise UserError(f"nothing is removed from {cache}: it may be the cache of other workspaces, too.")
        needed = needed_checksums(cache)
        files = [file for file in cache.glob("??/*") if file.parent.name + file.name not in needed]
        for file in sorted(files, key=lambda file: not file.name.endswith(FOLDER)):  # a list before its files
            about = file.stat()
            if about.st_mtime < before:
                file.unlink()
                yield about.st_size


@contextmanager
def quiet_repo() -> Iterator[Repo]:
    """Yield DVC's view of this workspace, locked; raises UserError if DVC runs here: its work is in no dvc.lock yet."""
    if users := dvc_processes():
        raise UserError(f"nothing of DVC's is removed, because DVC runs here ({', '.join(users)}).")
    try:
        with open_repo() as repo, lock_repo(repo):
            yield repo
    except DvcException as error:
        raise UserError(f"nothing of DVC's is removed: {error}") from None


def needed_checksums(cache: Path) -> set[str]:
    """Return the checksums that must stay in `cache`."""
    needed = {found for text in [*texts_in_folders(), *texts_in_git()] for found in CHECKSUM.findall(text)}
    for checksum in [name for name in needed if name.endswith(FOLDER)]:
        listed = cache / checksum[:2] / checksum[2:]
        if listed.is_file():
            needed.update(CHECKSUM.findall(listed.read_text(encoding="utf-8", errors="replace")))
    return needed


def texts_in_folders() -> Iterator[str]:
    """Yield the files that name outputs, as they lie in the folders of this workspace and of its worktrees."""
    lines = git("worktree", "list", "--porcelain", "-z").split("\0")
    for root in [Path(line.removeprefix("worktree ")) for line in lines if line.startswith("worktree ")]:
        if root.is_dir():
            options = ("--cached", "--others", "--exclude-standard")
            for name in git("-C", str(root), "ls-files", "-z", *options, "--", *NAMING).split("\0"):
                if name and (root / name).is_file():
                    yield (root / name).read_text(encoding="utf-8", errors="replace")


def texts_in_git() -> Iterator[str]:
    """Yield the files that name outputs, many at once, in each state that git can reach."""
    everything = ("--all", "--reflog", "--indexed-objects", "--full-history")
    found = git("rev-list", "--objects", *everything, "--", *NAMING).splitlines()
    files = [line.partition(" ")[0] for line in found if line.endswith(("dvc.lock", ".dvc"))]
    for part in parts(files):
        yield git("cat-file", "--batch", given="\n".join(part))


def parts(names: list[str]) -> Iterable[list[str]]:
    return (names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE))
