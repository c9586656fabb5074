"""verdict.json: what came of a candidate against the champion. Without Keras, so that the report can read it."""

from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt

from config import paths
from config.params import Task
from tasks.data.contracts import (
    Contract,
    Number,
    Seconds,
    Sha256,
    Source,
    read_contract,
    refuse_other_values,
    write_contract,
)

FILE = "verdict.json"

# `first`: there is no champion to compare with.
Outcome = Literal["first", "better", "no measurable change", "worse within noise", "regression"]
Rows = Literal["valid", "new rows", "test"]


class Contender(Contract):
    """A candidate or a champion.

    version, commit: of the registry and of git; None where there is none yet. sha256: of all files of its SavedModel.
    size: in bytes. ready_seconds, latency_ms, rows_per_second: of `tasks.promotion.score`; None, and no metrics, where
    it could not be scored, for the reason `failure`.
    """

    version: str | None
    commit: str | None
    sha256: Sha256
    size: NonNegativeInt
    ready_seconds: Seconds | None
    latency_ms: Number | None
    rows_per_second: Number | None
    failure: str | None
    metrics: dict[Rows, dict[str, Number]]


class JudgedRows(Contract):
    """How many rows both have answered, and the SHA-256 of all of them. new: those of valid that have newly arrived."""

    valid: NonNegativeInt
    new: NonNegativeInt
    test: NonNegativeInt
    sha256: Sha256


class Comparison(Contract):
    """The main metric of both on the same rows.

    kind: `valid` is all of that split, a `part` is the new rows in it, a class or a slice; `test` decides nothing.
    gain: positive where the candidate is better; of an accuracy the difference, of an RMSE the share by which it is
    lower than the champion's. low, high: its interval. better, worse: the p-values of its being chance; `worse` of a
    part is corrected for the number of parts. margin: None on test.
    """

    name: str
    kind: Literal["valid", "part", "test"]
    rows: NonNegativeInt
    candidate: Number
    champion: Number
    gain: Number
    low: Number
    high: Number
    better: Number
    worse: Number
    margin: Number | None


class Rule(Contract):
    """A rule of the gates.

    value, limit: None where the rule has no number. Of a comparison they are the lower end of the gain's interval and
    minus the margin. text: both in words, or what is wrong.
    """

    name: str
    value: Number | None
    limit: Number | None
    passed: bool
    text: str

    @property
    def result(self) -> str:
        """Whether it is kept; of a comparison that passes below its limit, why."""
        if not self.passed:
            return "failed"
        is_below = self.value is not None and self.limit is not None and self.value <= self.limit < 0
        return "within noise" if is_below else "kept"


class Verdict(Contract):
    """artifacts/M/verdict.json. reason: why the candidate is promoted or not. reason_to_retrain: as the caller says."""

    model: str
    dataset: str
    task: Task
    metric: str
    source: Source
    raw_sha256: Sha256
    outcome: Outcome
    promote: bool
    reason: str
    reason_to_retrain: str | None
    candidate: Contender
    champion: Contender | None
    rows: JudgedRows
    confidence: Number
    seed: NonNegativeInt
    rules: list[Rule]
    comparisons: list[Comparison]

    @property
    def failed(self) -> list[Rule]:
        return [rule for rule in self.rules if not rule.passed]

    def comparison(self, name: str) -> Comparison | None:
        return next((found for found in self.comparisons if found.name == name), None)


def write_verdict(verdict: Verdict, folder: Path) -> None:
    """Write verdict.json. folder: an empty one of `runtime.atomic_outputs`."""
    write_contract(folder / FILE, verdict)


def read_verdict(model: str, root: Path = Path()) -> Verdict:
    """Read the verdict on the candidate of `model`; raises UserError where it is missing or damaged.

    root: of the workspace.
    """
    path = root / paths.artifacts_folder(model) / FILE
    found = read_contract(path, Verdict, f"train@{model}")
    refuse_other_values(path, f"train@{model}", found, {"model": model}, "its folder")
    return found


def to_markdown(verdict: Verdict) -> str:
    """Return a verdict for an artifact of Prefect."""
    decision = "promoted" if verdict.promote else "not promoted"
    lines = [f"# {verdict.model}: {verdict.outcome}, {decision}", "", f"{sentence(verdict.reason)}.", ""]
    parts = {found.name for found in verdict.comparisons if found.kind == "part"}
    kept = sum(rule.passed for rule in verdict.rules if rule.name in parts)
    lines += ["| rule | value | limit | result | in words |", "|---|---|---|---|---|"]
    for rule in sorted(verdict.rules, key=lambda rule: rule.passed):
        if rule.passed and rule.name in parts:
            continue
        values = " | ".join("–" if number is None else f"{number:.4g}" for number in (rule.value, rule.limit))
        mark = "✓" if rule.passed else "✗"
        lines.append(f"| {cell(rule.name)} | {values} | {mark} {rule.result} | {cell(rule.text)} |")
    if kept:
        lines += ["", f"Of {len(parts)} classes, slices and sets of new rows, {kept} keep their rule."]
    lines += ["", f"| {verdict.metric} | candidate | champion |", "|---|---|---|"]
    for rows, metrics in verdict.candidate.metrics.items():
        other = verdict.champion.metrics.get(rows, {}) if verdict.champion else {}
        shown = [f"{found[verdict.metric]:.4f}" if verdict.metric in found else "–" for found in (metrics, other)]
        lines.append(f"| {rows} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def cell(text: str) -> str:
    """Return a text for a cell of a table in Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")
