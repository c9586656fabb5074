"""Where the models come from: the champions of the registry, or a folder with SavedModels."""

import re
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from orchestration import registry
from orchestration.model_files import CHAMPIONS, champion_or
from orchestration.registry_tags import git_folder
from runtime.errors import UserError, unknown_name
from tasks.publishing.checksums import tree_sha256

# What git changes when it writes a tag: loose tags, packed ones, and those of the newer format.
TAG_FILES = ("refs/tags", "packed-refs", "reftable/tables.list")
FETCH = [sys.executable, "-m", "serving.fetch"]


class Source(NamedTuple):
    """Where models come from.

    wanted: returns the version of each model that is to be served; raises UserError. stamp: returns something cheap
    that is another as soon as `wanted` may be. fetch: takes names of models with versions, and returns the folder of
    the SavedModel of each model; it may take a while.
    """

    wanted: Callable[[], dict[str, str]]
    stamp: Callable[[], Any]
    fetch: Callable[[dict[str, str]], dict[str, Path]]


def registry_source(names: Sequence[str]) -> Source:
    """Return the champions of these models, or of all models without a name.

    Raises UserError for an unknown model, one without a champion, or if no model has one.
    """
    for name in names:
        champion_or(name, None)
    git = git_folder()

    def wanted() -> dict[str, str]:
        summaries, _ = registry.overview()
        return {
            summary.model: summary.champion.version
            for summary in summaries
            if summary.champion and (not names or summary.model in names)
        }

    if not wanted():
        raise UserError(
            "no model has a champion yet. Promote one (`python -m flows.retrain`, or `python -m flows.registry promote "
            "MODEL@VERSION`), or serve what is trained: `python -m flows.serve --models artifacts`."
        )
    return Source(wanted, lambda: [changed(git / name) for name in TAG_FILES], fetch_champions)


def changed(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def fetch_champions(versions: dict[str, str]) -> dict[str, Path]:
    """Return the SavedModels of versions by model; those that are not at hand come from DVC's cache or remote.

    A process of its own fetches them, because DVC would take this one's time from the requests.
    """
    folders = {model: CHAMPIONS / model / version / "saved_model" for model, version in versions.items()}
    missing = [f"{model}@{versions[model]}" for model, folder in folders.items() if not folder.exists()]
    if missing:
        done = subprocess.run([*FETCH, *missing], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(done.stderr.strip().removeprefix("error: ") or f"{missing[0]} could not be fetched.")
    return folders


def folder_source(folder: Path, names: Collection[str]) -> Source:
    """Return the SavedModels MODEL/saved_model or MODEL/VERSION/saved_model of a folder, the newest version of each.

    Without a version it is the beginning of the checksum of its files. Raises UserError if there are none, or not all
    of these names.
    """

    def found() -> dict[str, tuple[str, Path]]:
        folders = {model.name: newest(model) for model in sorted(folder.glob("*/"))}
        return {name: entry for name, entry in folders.items() if entry and (not names or name in names)}

    def wanted() -> dict[str, str]:
        return {name: version for name, (version, _) in found().items()}

    def fetch(versions: dict[str, str]) -> dict[str, Path]:
        return {name: path for name, (version, path) in found().items() if versions.get(name) == version}

    present = wanted()
    if not present and not names:
        raise UserError(
            f"{folder} has no SavedModel. Put one into {folder}/MODEL/saved_model, or, to have several versions, into "
            f"{folder}/MODEL/VERSION/saved_model."
        )
    for name in names:
        if name not in present:
            known = [path.name for path in folder.glob("*/") if newest(path)]
            raise unknown_name("model", name, known, f"The models of {folder}")
    return Source(wanted, lambda: sorted((str(path), changed(path)) for path in folder.glob("*/")), fetch)


def newest(model: Path) -> tuple[str, Path] | None:
    """Return version and SavedModel of a model's folder; None where it has none."""
    if is_saved_model(model / "saved_model"):
        with suppress(OSError):  # it is being replaced
            return tree_sha256(model / "saved_model")[:12], model / "saved_model"
        return None
    versions = [path for path in model.glob("*/") if is_saved_model(path / "saved_model")]
    if not versions:
        return None
    last = max(
        versions, key=lambda path: [int(part) if part.isdecimal() else 0 for part in re.split(r"\D+", path.name)]
    )
    return last.name, last / "saved_model"


def is_saved_model(folder: Path) -> bool:
    return (folder / "saved_model.pb").is_file()
