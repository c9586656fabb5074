"""The SavedModel of a version of a model, at hand: `.retrain/champions/MODEL/VERSION`."""

from pathlib import Path

from config import paths
from orchestration import registry
from orchestration.registry_state import Version
from runtime.errors import UserError

CHAMPIONS = paths.RETRAIN / "champions"


def fetch_saved_model(version: Version) -> Path:
    """Return the SavedModel of a version, which is fetched once, and kept until there is another champion."""
    folder = CHAMPIONS / version.model / version.version
    if not folder.exists():
        try:
            registry.export_version(version, folder)
        except (UserError, OSError):
            if not folder.exists():  # another program has not just fetched it
                raise
    return folder / "saved_model"


def champion_or(model: str, version: str | None) -> Version:
    """Return a version of `model`, or its champion where `version` is None; raises UserError if there is none."""
    if version:
        return registry.find_version(model, version)
    if champion := registry.champion(model):
        return champion
    raise UserError(
        f"{model} has no champion yet. Promote one (`python -m flows.retrain {model}`), or name a folder with a "
        f"SavedModel instead, such as {paths.artifacts_folder(model) / 'saved_model'}."
    )
