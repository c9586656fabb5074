"""Restore: put a stage's last recorded outputs back from DVC's cache."""

import shutil


def restore(stage_name: str) -> bool:
    """Put back the missing outputs of `stage_name` as dvc.lock records them; return whether there were any.

    Outputs that DVC does not cache (metrics, which git tracks) are in its cache all the same, through the
    run cache; `dvc checkout` passes over them, so they are copied here.
    """
    from dvc.repo import Repo

    with Repo() as repo:
        [stage] = repo.stage.collect(stage_name)
        missing = [out for out in stage.outs if out.hash_info and not out.exists]
        for out in missing:
            if out.use_cache:
                out.checkout()
                continue
            cached = repo.cache.local.oid_to_path(out.hash_info.value)
            if repo.cache.local.fs.exists(cached):
                shutil.copyfile(cached, out.fs_path)
        return bool(missing) and all(out.exists for out in missing)
