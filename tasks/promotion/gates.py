"""The rules that a candidate must keep, and what they say together.

A comparison of the two models blocks the candidate only if it is worse beyond chance, and the margin is not shown to be
kept: the lower end of the gain's interval is at or below minus the margin. So many rows are judged by the margin, and
few rows by what they can tell at all: a candidate of three validation rows is never blocked by a comparison, one of 28
only if it loses six rows and gains none. Absolute thresholds guard such data sets.

Of the chance 1 - confidence that an equal candidate is blocked or called better, a half is for each tail of the whole
valid split. The classes, slices and new rows share one more such half, by Holm's correction. So with 0.95 an equal
candidate is blocked in at most one night of twenty.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from config.gates import ERRORS, Gates, LatencyLimit, LoadLimit, ModelGates, SizeLimit
from tasks.evaluation.metrics import quarters
from tasks.promotion.paired import Paired, compare_accuracy, compare_rmse, holm
from tasks.promotion.score import Scored, Unscored
from tasks.promotion.verdict import Comparison, Outcome, Rule

MAX_NAMED = 5  # failed rules in the reason
NEW_ROWS: Literal["new rows"] = "new rows"


@dataclass(frozen=True)
class Answers:
    """What both models answer to the same rows.

    truth, candidate, champion: class numbers, int64 [rows], or quantities, float64 [rows].
    """

    truth: np.ndarray
    candidate: np.ndarray
    champion: np.ndarray


def slices(
    truth: np.ndarray, class_names: list[str], features: pd.DataFrame, new: np.ndarray, least: int
) -> dict[str, np.ndarray]:
    """Return the parts of the valid rows that are compared by themselves: bool [rows], by name.

    They are the new rows, the classes, and each quarter of the rows by a feature. Quarters by the quantity to predict
    are none: a model that predicts too low for everybody is the better one where that quantity is low.

    Args:
        truth: class numbers or quantities.
        class_names: [] for a regression.
        features: a column for each number of a raw row, in the order of `truth`.
        new: bool, which rows have newly arrived.
        least: smaller parts are left out.
    """
    parts: dict[str, np.ndarray] = {NEW_ROWS: new}
    parts |= {f"class {name}": truth == number for number, name in enumerate(class_names)}
    for name, values in features.items():
        parts |= quarters(str(name), values)
    return {name: rows for name, rows in parts.items() if rows.sum() >= least}


def compare(
    answers: Answers, parts: Mapping[str, np.ndarray], is_classes: bool, gates: Gates, own: ModelGates, seed: int
) -> list[Comparison]:
    """Compare candidate and champion on all valid rows, then on parts of them.

    Args:
        answers: to the valid rows.
        parts: of `slices`.
        is_classes: whether the answers are classes; else quantities.
        gates: of the data set.
        own: of the model, by `Gates.of`.
        seed: of the random tests.
    """
    everything = np.ones(len(answers.truth), bool)
    masks = [everything, *parts.values()]
    names = ["valid", *parts]
    paired = compare_parts(answers, masks, is_classes, gates, seed)
    corrected = [paired[0].worse, *holm([found.worse for found in paired[1:]])]
    return [
        comparison(
            name,
            "part" if number else "valid",
            answers,
            masks[number],
            is_classes,
            paired[number],
            corrected[number],
            own.slice_margin if number else own.margin,
        )
        for number, name in enumerate(names)
    ]


def compare_on_test(answers: Answers, is_classes: bool, gates: Gates, seed: int) -> Comparison:
    """Compare both models on the test rows; this decides nothing.

    Args:
        answers: to the test rows.
        is_classes: whether the answers are classes; else quantities.
        gates: of the data set.
        seed: of the random tests.
    """
    everything = np.ones(len(answers.truth), bool)
    [paired] = compare_parts(answers, [everything], is_classes, gates, seed)
    return comparison("test", "test", answers, everything, is_classes, paired, paired.worse, None)


def compare_parts(answers: Answers, masks: list[np.ndarray], is_classes: bool, gates: Gates, seed: int) -> list[Paired]:
    if is_classes:
        right = answers.candidate == answers.truth, answers.champion == answers.truth
        return [compare_accuracy(right[0][mask], right[1][mask], gates.confidence) for mask in masks]
    errors = answers.candidate - answers.truth, answers.champion - answers.truth
    return compare_rmse(*errors, masks, gates.confidence, gates.draws, seed)


def comparison(
    name: str,
    kind: str,
    answers: Answers,
    mask: np.ndarray,
    is_classes: bool,
    paired: Paired,
    worse: float,
    margin: float | None,
) -> Comparison:
    """Return a comparison for the verdict.

    Args:
        name, kind, margin: of the comparison.
        answers: of both models.
        mask: bool [rows], the compared rows.
        is_classes: whether the answers are classes; else quantities.
        paired: the statistics.
        worse: its p-value, corrected.
    """
    values = {"candidate": answers.candidate, "champion": answers.champion}
    truth = answers.truth[mask]
    if is_classes:
        measured = {key: float((value[mask] == truth).mean()) for key, value in values.items()}
    else:
        measured = {key: float(np.sqrt(((value[mask] - truth) ** 2).mean())) for key, value in values.items()}
    statistics = {"gain": paired.gain, "low": paired.low, "high": paired.high, "better": paired.better, "worse": worse}
    return Comparison(name=name, kind=kind, rows=int(mask.sum()), margin=margin, **measured, **statistics)  # type: ignore[arg-type]


def comparison_rule(found: Comparison, metric: str, gates: Gates) -> Rule:
    """Return whether a candidate is not worse on some rows beyond margin and chance.

    Args:
        found: on these rows.
        metric: the main one.
        gates: of the data set.
    """
    assert found.margin is not None
    kept = found.low > -found.margin
    worse = is_beyond_chance(found.worse, gates)
    meaning = "" if kept else "; worse beyond chance" if worse else "; within noise"
    unit = "points" if metric == "accuracy" else "%"
    gain, low, high = (signed_percent(value) for value in (found.gain, found.low, found.high))
    text = (
        f"{metric} {found.candidate:.4f}, champion's {found.champion:.4f}, {found.rows:,} rows: gain {gain} {unit} "
        f"({low} to {high}), margin {100 * found.margin:g}{meaning}"
    )
    return Rule(name=found.name, value=found.low, limit=-found.margin, passed=kept or not worse, text=text)


def is_beyond_chance(p: float, gates: Gates) -> bool:
    return p < (1 - gates.confidence) / 2


def signed_percent(share: float) -> str:
    return f"{'−' if share < 0 else '+'}{abs(100 * share):.2f}"


def load_rules(candidate: Scored | Unscored, limit: LoadLimit) -> list[Rule]:
    """Return whether a candidate loads and answers its first row in time, and whether it answers all rows.

    Args:
        candidate: what came of scoring it.
        limit: of time and tries.
    """
    seconds = candidate.ready_seconds
    if isinstance(candidate, Unscored) and seconds is None:
        return [Rule(name="loads", value=None, limit=limit.seconds, passed=False, text=candidate.reason)]
    assert seconds is not None
    text = f"loads and answers a row in a clean process within {seconds:.1f} s, limit {limit.seconds:g} s"
    rules = [Rule(name="loads", value=round(seconds, 3), limit=limit.seconds, passed=True, text=text)]
    failure = candidate.reason if isinstance(candidate, Unscored) else None
    text = failure or "every answer has the right shape and is finite"
    return [*rules, Rule(name="answers", value=None, limit=None, passed=failure is None, text=text)]


def limit_rule(name: str, value: float, champion: float | None, limit: SizeLimit | LatencyLimit) -> Rule:
    """Return whether a candidate is neither much larger or slower than the champion nor beyond an absolute limit.

    Args:
        name: "size", in bytes, or "latency", in milliseconds.
        value: the candidate's.
        champion: the champion's; None if there is none.
        limit: of the gates.
    """
    grown = limit.most if champion is None else max(limit.small, limit.growth * champion)
    allowed = min(limit.most, grown)
    found, most = ((size_text if name == "size" else time_text)(amount) for amount in (value, allowed))
    return Rule(name=name, value=value, limit=allowed, passed=value <= allowed, text=f"{found}, limit {most}")


def size_text(size: float) -> str:
    return f"{size / 1e6:,.2f} MB"


def time_text(milliseconds: float) -> str:
    return f"{milliseconds:.2f} ms for one row"


def absolute_rules(metrics: Mapping[str, float], own: ModelGates) -> list[Rule]:
    """Return whether the metrics on valid keep the model's thresholds."""
    rules = []
    for metric, limit in own.absolute.items():
        value, at_most = metrics[metric], metric in ERRORS
        text = f"{metric} {value:.4f} on valid, at {'most' if at_most else 'least'} {limit:g}"
        passed = value <= limit if at_most else value >= limit
        rules.append(Rule(name=f"{metric} threshold", value=value, limit=limit, passed=passed, text=text))
    return rules


def outcome_of(comparisons: list[Comparison], rules: list[Rule], gates: Gates) -> Outcome:
    """Return what the comparisons say together.

    Args:
        comparisons: of `compare`, that of all valid rows first.
        rules: of these comparisons.
        gates: of the data set.
    """
    whole = comparisons[0]
    assert whole.margin is not None
    if not all(rule.passed for rule in rules):
        return "regression"
    if is_beyond_chance(whole.better, gates):
        return "better"
    if is_beyond_chance(whole.worse, gates) or (whole.gain < 0 and whole.low <= -whole.margin):
        return "worse within noise"
    return "no measurable change"


def decide(outcome: Outcome, rules: list[Rule], same: bool, reason_to_retrain: str | None) -> tuple[bool, str]:
    """Return whether a candidate is promoted, and why.

    Args:
        outcome: of the comparison.
        rules: all of them.
        same: whether candidate and champion are the same SavedModel.
        reason_to_retrain: such as "new rows arrived"; None if there is none.
    """
    if failed := [rule.name for rule in rules if not rule.passed]:
        further = f" and {len(failed) - MAX_NAMED} more" if len(failed) > MAX_NAMED else ""
        return False, f"{outcome}; rules that failed: {', '.join(failed[:MAX_NAMED])}{further}"
    if same:
        return False, "the candidate is the champion"
    if outcome == "first":
        return True, "the first version, and every rule is kept"
    if outcome == "better":
        return True, "better than the champion, and every rule is kept"
    if reason_to_retrain:
        return True, f"{outcome}, every rule is kept, and {reason_to_retrain}"
    return False, f"{outcome}, and no other reason to replace the champion"
