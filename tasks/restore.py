"""Restore: put a stage's last recorded outputs back after DVC removed them."""

import shutil
import subprocess


def restore(stage_name: str) -> list[str]:
    """Put back the missing outputs of `stage_name` as dvc.lock records them; return the paths of those put back.

    What is in DVC's cache comes from there. Metrics, which DVC does not cache but git tracks, are in it through
    the run cache, and else come from the last commit. What is in neither, as in a fresh clone, stays missing.
    """
    from dvc.repo import Repo

    restored = []
    with Repo() as repo:
        [stage] = repo.stage.collect(stage_name)
        for out in stage.outs:
            if not out.hash_info or out.exists:
                continue
            if out.use_cache:
                if not out.changed_cache():
                    out.checkout()
            else:
                cached = repo.cache.local.oid_to_path(out.hash_info.value)
                if repo.cache.local.fs.exists(cached):
                    shutil.copyfile(cached, out.fs_path)
                else:
                    command = ["git", "restore", "--source=HEAD", "--worktree", "--", out.fs_path]
                    subprocess.run(command, capture_output=True, check=False)
            if out.exists:
                restored.append(out.def_path)
    return restored
