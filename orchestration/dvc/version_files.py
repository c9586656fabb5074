"""The files of a version of a model, from DVC's cache or remote."""

import shutil
import tempfile
from pathlib import Path

from runtime.errors import UserError


def export_files(name: str, commit: str, source: Path, folder: Path) -> None:
    """Copy what a commit has in the folder `source`, of git and of DVC, to `folder`, whole or not at all.

    Args:
        name: the version, for messages.
        commit: its hash.
        source: a folder of the workspace.
        folder: it must not exist.

    Raises:
        UserError: `folder` exists; there is no DVC repository, or one without git; a file is neither in DVC's cache nor
            in its remote.
    """
    from dvc.exceptions import DvcException
    from dvc.scm import NoSCM
    from dvc_data.index import DataIndexDirError

    from orchestration.dvc.graph import open_repo

    if folder.exists():
        raise UserError(f"{folder} exists already. Remove it, or name another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open_repo() as repo:
        if isinstance(repo.scm, NoSCM):
            raise UserError(
                "DVC works without git here (core.no_scm), and the registry needs git: there are no versions."
            )
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            with repo.switch(commit):
                repo.dvcfs.get(str(source), str(partial / "files"), recursive=True)
            (partial / "files").rename(folder)
        except (DvcException, DataIndexDirError, FileNotFoundError) as error:
            raise UserError(
                f"{name}: a file of {source} is neither in DVC's cache nor in its remote ({error}). Where it is, run "
                "`dvc push --all-tags`; then repeat this."
            ) from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
