"""About how long a run will take: what its stages took the last time, in their run.json."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from config import paths
from orchestration.dvc.graph import OF_MODELS
from orchestration.resources import Machine, Resources


@dataclass(frozen=True)
class Duration:
    """About how long a run will take.

    seconds: in all. unknown: the trainings and searches of which no record says how long they took.
    """

    seconds: float
    unknown: list[str]

    def __str__(self) -> str:
        count = len(self.unknown)
        longer = f"{count} training{'s' if count > 1 else ''} of which no time is known" if count else ""
        known = f"about {in_words(self.seconds)}, by the last time" if self.seconds else ""
        return " and ".join(part for part in (known, longer) if part)


def estimate(stages: Iterable[str], resources: dict[str, Resources], machine: Machine) -> Duration:
    """Return how long `stages` will take if none of them is as it was.

    A stage takes its share of the machine's threads and one of its jobs, so waiting for other stages is not part of
    its time. Only trainings and searches count; all else is short.

    Args:
        stages: that may run.
        resources: what each stage takes.
        machine: where they run.
    """
    published = seconds_of_summary()
    taken: dict[str, float] = {}
    unknown = []
    for stage in stages:
        group, _, model = stage.partition("@")
        if group not in OF_MODELS:
            continue
        seconds = recorded_seconds(group, model) or (published.get(model) if group == "train" else None)
        if seconds is None:
            unknown.append(stage)
            continue
        taken[stage] = seconds
    by_threads = sum(
        seconds * min(resources[stage].threads, machine.threads) / machine.threads for stage, seconds in taken.items()
    )
    by_jobs = sum(taken.values()) / machine.jobs
    return Duration(max(by_threads, by_jobs, *taken.values(), 0.0), unknown)


def recorded_seconds(group: str, model: str) -> float | None:
    """Return the seconds that a training or search took the last time; None where there is no readable record."""
    folders = {
        "train": paths.artifacts_folder,
        "lecture_recipe": paths.lecture_recipe_folder,
        "search": paths.search_folder,
    }
    try:
        record = json.loads((folders[group](model) / "run.json").read_text(encoding="utf-8"))
        found: Any = record["seconds"]
        return float(found["total"] if isinstance(found, dict) else found)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def seconds_of_summary() -> dict[str, float]:
    """Return the seconds of each training in reports/summary.json, which git keeps, for a clone without artifacts.

    Read without its contract, which imports scikit-learn: a run would start a second later.
    """
    try:
        rows = json.loads((paths.REPORTS / "summary.json").read_text(encoding="utf-8"))
        return {row["name"]: float(row["seconds"]["total"]) for row in rows if row["kind"] == "network"}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def in_words(seconds: float) -> str:
    """Return a time as a person says it: 40 s, 12 min, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
