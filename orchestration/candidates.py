"""Which models of a workspace are candidates, and what has changed since the champion was trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from config import paths
from config.params import load_params
from datasets import get_dataset
from orchestration import registry
from orchestration.dvc.lockfile import LOCK_FILE
from orchestration.git import git
from orchestration.model_files import fetch_saved_model
from orchestration.registry_state import Version
from runtime.stderr import quiet_stderr
from tasks.data.raw import read_provenance
from tasks.promotion.verdict import FILE, Verdict, read_verdict
from tasks.publishing.checksums import tree_sha256

# What a version's tag holds: how many raw rows there were, and the SHA-256 of the SavedModel.
ROWS, DIGEST = "rows", "sha256"


@dataclass(frozen=True)
class Candidate:
    """A model that was trained after the champion. reason: why; None: nothing has changed, or there is no champion."""

    model: str
    champion: Version | None
    reason: str | None


def find_candidate(model: str) -> Candidate | None:
    """Return the candidate of `model` in the current workspace; None if it is the champion, or judged already."""
    now = lock_entry(Path(LOCK_FILE).read_text(encoding="utf-8"), model)
    champion = registry.champion(model)
    if not now:
        return None
    before = lock_entry(git("show", f"{champion.commit}:{LOCK_FILE}"), model) if champion else {}
    if champion and output_of(now, model) == output_of(before, model):
        return None
    if is_judged(model, champion) or was_champion(model):
        return None
    return Candidate(model, champion, reason_to_retrain(before, now) if champion else None)


def was_champion(model: str) -> bool:
    """Return whether the present candidate has been the champion: who rolled it back wants it to stay so."""
    digest = tree_sha256(paths.artifacts_folder(model) / "saved_model")
    return any(event.facts.get(DIGEST) == digest for event in registry.history(model) if event.event != "registration")


def is_judged(model: str, champion: Version | None) -> bool:
    """Return whether verdict.json is about this candidate and this champion."""
    folder = paths.artifacts_folder(model)
    if not (folder / FILE).exists():
        return False
    verdict = read_verdict(model)
    same = (verdict.champion.version if verdict.champion else None) == (champion.version if champion else None)
    return same and verdict.candidate.sha256 == tree_sha256(folder / "saved_model")


def lock_entry(text: str, model: str) -> dict[str, Any]:
    """Return what a dvc.lock says of the training of `model`; {} if nothing."""
    stages = (YAML(typ="safe").load(text) or {}).get("stages", {})
    return stages.get(f"train@{model}", {})


def output_of(entry: dict[str, Any], model: str) -> str | None:
    """Return the checksum of the SavedModel in an entry of dvc.lock."""
    path = str(paths.artifacts_folder(model) / "saved_model")
    return next((out["md5"] for out in entry.get("outs", ()) if out["path"] == path), None)


def reason_to_retrain(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Return in words why dvc.lock says that a model was trained anew; None if it names no reason.

    Args:
        before: the entry of the champion's training.
        now: that of the candidate's.
    """
    if before.get("params") != now.get("params"):
        return "the recipe changed"
    changed = {dep["path"] for dep in now.get("deps", ()) if dep not in before.get("deps", ())}
    if any(path.startswith("data/") for path in changed):
        return "new rows arrived"
    return f"{', '.join(sorted(changed))} changed" if changed else None


def is_promotable(model: str) -> bool:
    """Return whether the verdict on the present candidate lets it become champion, which it is not yet."""
    champion = registry.champion(model)
    return is_judged(model, champion) and read_verdict(model).promote and not was_champion(model)


def facts_of(verdict: Verdict) -> dict[str, Any]:
    """Return what the tags of a version hold besides who, when and why."""
    metrics: dict[str, Any] = {rows: found[verdict.metric] for rows, found in verdict.candidate.metrics.items()}
    rows = read_provenance(get_dataset(verdict.dataset)).rows
    about = {"outcome": verdict.outcome, "metric": verdict.metric, **metrics}
    return {**about, DIGEST: verdict.candidate.sha256, ROWS: rows}


def judge_candidate(candidate: Candidate) -> Verdict:
    """Judge a candidate by the rows and the gates of the current workspace; raises UserError as `judge` does."""
    with quiet_stderr():  # it imports Keras
        from tasks.promotion.judge import Version as Trained
        from tasks.promotion.judge import judge_task, select_rows

    params, model, version = load_params(), candidate.model, candidate.champion
    dataset = params.model(model).dataset
    rows = select_rows(dataset, arrived_since(dataset, version))
    trained = Trained(paths.artifacts_folder(model) / "saved_model")
    champion = Trained(fetch_saved_model(version), version.version, version.commit) if version else None
    return judge_task(model, trained, champion, rows, params.gates_of(dataset), candidate.reason)


def arrived_since(dataset: str, champion: Version | None) -> np.ndarray:
    """Return the numbers, int64, of the raw rows that the champion's data set did not have; rows are only added."""
    rows = read_provenance(get_dataset(dataset)).rows
    known = champion.facts.get(ROWS, rows) if champion else rows
    return np.arange(min(known, rows), rows)
