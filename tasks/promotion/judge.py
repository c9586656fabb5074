"""Judge a candidate against the champion, in the workspace whose data the candidate was trained on."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from prefect import task

from config.gates import GATED_METRICS, Gates, ModelGates
from config.params import ModelParams, load_params
from datasets import get_dataset
from datasets.dataset import Dataset, checksum, to_values
from models.common.features import get_target
from models.common.outputs import MAIN_OUTPUT, metric_prefix, predicted_class
from tasks.data.examples import class_names, true_class
from tasks.data.raw import read_raw
from tasks.data.schema import PreparedSchema, read_schema, read_split_rows
from tasks.evaluation.metrics import classification_metrics, regression_metrics
from tasks.promotion.gates import (
    NEW_ROWS,
    Answers,
    absolute_rules,
    compare,
    compare_on_test,
    comparison_rule,
    decide,
    limit_rule,
    load_rules,
    outcome_of,
    slices,
)
from tasks.promotion.score import Scored, Unscored, score, write_rows
from tasks.promotion.verdict import Comparison, Contender, JudgedRows, Outcome, Rows, Rule, Verdict
from tasks.publishing.checksums import tree_sha256

DEFAULT_SEED = 42


@dataclass(frozen=True)
class Version:
    """A trained model to judge.

    saved_model: its folder. version: of the registry, such as "v3". commit: that holds it. None: there is none yet.
    """

    saved_model: Path
    version: str | None = None
    commit: str | None = None


@dataclass(frozen=True)
class RowSelection:
    """The rows that both models answer: numbers of rows of data/raw/D.parquet, int64.

    new: those of `valid` that have newly arrived. No row may be in a train split: a model knows those. test: is scored
    and reported, and decides nothing.
    """

    valid: np.ndarray
    new: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Judged:
    """The rows that both models answer: those of valid, then those of test.

    metric: the main one. names: of the classes; [] for a regression. truth: class numbers, int64 [rows], or quantities,
    float64 [rows]. features: those that are numbers, in raw units. places: the numbers of the rows of valid, test and
    the new ones. own: the truth and the names of outputs with a target of their own.
    """

    metric: str
    names: list[str]
    truth: np.ndarray
    features: pd.DataFrame
    places: dict[Rows, np.ndarray]
    own: dict[str, tuple[np.ndarray, list[str]]] = field(default_factory=dict)

    def answers(self, scored: Scored, output: str = MAIN_OUTPUT) -> np.ndarray:
        """Return what a model answers to the rows: class numbers, int64 [rows], or quantities, float64 [rows]."""
        values = scored.outputs[output]
        return predicted_class(values) if self.names_of(output) else values.reshape(-1).astype(np.float64)

    def names_of(self, output: str) -> list[str]:
        """Return the names of the classes of an output; [] for a quantity."""
        return self.own[output][1] if output in self.own else self.names

    def measure(self, scored: Scored, output: str, place: np.ndarray) -> dict[str, float]:
        """Return the metrics of an output on some of the rows."""
        truth = self.own[output][0] if output in self.own else self.truth
        measured = classification_metrics if self.names_of(output) else regression_metrics
        return measured(truth[place], self.answers(scored, output)[place])


def select_rows(dataset: str, arrived: np.ndarray) -> RowSelection:
    """Return the rows to judge a candidate of `dataset` by: the prepared valid and test splits.

    arrived: numbers of the raw rows that the champion's training did not have; of these, the ones in valid are compared
    by themselves. Raises UserError where the prepared data is missing or damaged.
    """
    schema = read_schema(dataset)
    splits = read_split_rows(get_dataset(dataset), schema, schema.rows.total)
    return RowSelection(splits["valid"], np.intersect1d(splits["valid"], arrived), splits["test"])


def judge(
    model: str,
    candidate: Version,
    champion: Version | None,
    rows: RowSelection,
    gates: Gates,
    reason_to_retrain: str | None,
    seed: int = DEFAULT_SEED,
) -> Verdict:
    """Score candidate and champion on the same rows in clean processes, and decide by the gates.

    A model that does not load, answers wrong or too slowly is a rule that failed, not an error.

    Args:
        model: its name in params.yaml of the current directory, whose data/raw and data/prepared hold the rows.
        candidate: the newly trained model.
        champion: the model in use; None for the first candidate, which only the absolute rules judge.
        rows: of `select_rows`.
        gates: `load_params().gates_of(dataset)`.
        reason_to_retrain: such as "new rows arrived" or "the recipe changed", by which a candidate that is no better
            is promoted, too; None: only a better one is.
        seed: of the random tests.

    Raises:
        UserError: the raw or prepared data is missing or damaged.
        ValueError: a row is selected twice, there is no such row, or valid has fewer than two.
        OSError: the disk is full.
    """
    recipe = load_params().model(model)
    dataset, schema = get_dataset(recipe.dataset), read_schema(recipe.dataset)
    table = take_rows(read_raw(dataset, schema.raw_sha256), rows)
    judged = Judged(
        metric=GATED_METRICS[recipe.task][0],
        names=class_names(recipe, schema),
        truth=true_values(recipe, MAIN_OUTPUT, dataset, table, schema),
        features=number_columns(dataset, table),
        places={
            "valid": np.arange(len(rows.valid)),
            NEW_ROWS: np.flatnonzero(np.isin(rows.valid, rows.new)),
            "test": len(rows.valid) + np.arange(len(rows.test)),
        },
        own={
            output: (true_values(recipe, output, dataset, table, schema), class_names(recipe, schema, output))
            for output in recipe.targets
        },
    )
    versions = [candidate] if champion is None else [candidate, champion]
    scored = score_all(versions, table.select(dataset.features), gates, judged)
    described = [describe(version, found, judged) for version, found in zip(versions, scored, strict=True)]
    rules = [*load_rules(scored[0], gates.load), *limit_rules(described, gates)]
    if isinstance(scored[0], Scored):
        rules += absolute_rules(described[0].metrics["valid"], gates.of(model))
    outcome, compared, comparisons = compare_models(scored, judged, gates, gates.of(model), seed)
    rules += compared
    same = champion is not None and described[0].sha256 == described[1].sha256
    promote, reason = decide(outcome, rules, same, reason_to_retrain)
    return Verdict(
        model=model,
        dataset=dataset.name,
        task=recipe.task,
        metric=judged.metric,
        source=schema.source,
        raw_sha256=schema.raw_sha256,
        outcome=outcome,
        promote=promote,
        reason=reason,
        reason_to_retrain=reason_to_retrain,
        candidate=described[0],
        champion=described[1] if champion else None,
        rows=JudgedRows(valid=len(rows.valid), new=len(rows.new), test=len(rows.test), sha256=checksum(table)),
        confidence=gates.confidence,
        seed=seed,
        rules=rules,
        comparisons=comparisons,
    )


def compare_models(
    scored: list[Scored | Unscored], judged: Judged, gates: Gates, own: ModelGates, seed: int
) -> tuple[Outcome, list[Rule], list[Comparison]]:
    """Return the outcome of a comparison of candidate and champion, its rules, and what was compared.

    Args:
        scored: the candidate, then the champion if there is one.
        judged: the rows.
        gates: of the data set.
        own: of the model.
        seed: of the random tests.
    """
    candidate, champion = scored[0], scored[1] if len(scored) > 1 else None
    if isinstance(champion, Unscored):
        text = f"the champion cannot be compared with: {champion.reason}. Run again, or promote a version by hand"
        rule = Rule(name="champion answers", value=None, limit=None, passed=False, text=text)
        return "regression" if isinstance(candidate, Unscored) else "no measurable change", [rule], []
    if isinstance(candidate, Unscored):
        return "regression", [], []
    if champion is None:
        return "first", [], []
    answers = {
        rows: Answers(judged.truth[place], judged.answers(candidate)[place], judged.answers(champion)[place])
        for rows, place in judged.places.items()
    }
    valid, features = answers["valid"], judged.features.iloc[judged.places["valid"]].reset_index(drop=True)
    new = np.isin(judged.places["valid"], judged.places[NEW_ROWS])
    parts = slices(valid.truth, judged.names, features, new, gates.slice_rows)
    comparisons = compare(valid, parts, bool(judged.names), gates, own, seed)
    rules = [comparison_rule(found, judged.metric, gates) for found in comparisons]
    on_test = [compare_on_test(answers["test"], bool(judged.names), gates, seed)] if len(answers["test"].truth) else []
    return outcome_of(comparisons, rules, gates), rules, [*comparisons, *on_test]


def take_rows(raw: pa.Table, rows: RowSelection) -> pa.Table:
    """Return the valid rows, then the test rows; raises ValueError where a row is there twice or does not exist."""
    chosen = np.concatenate([rows.valid, rows.test])
    if len(np.unique(chosen)) < len(chosen) or not np.isin(rows.new, rows.valid).all():
        raise ValueError("a row is selected twice, or a new row is none of valid")
    if len(rows.valid) < 2 or chosen.min() < 0 or chosen.max() >= raw.num_rows:
        raise ValueError(f"fewer than two rows of valid, or numbers of no raw row of {raw.num_rows}")
    return raw.take(chosen)


def score_all(versions: list[Version], features: pa.Table, gates: Gates, judged: Judged) -> list[Scored | Unscored]:
    """Score models on the same rows, one after another; one whose answers have another shape is unscored.

    Args:
        versions: the models.
        features: the rows in raw units.
        gates: of the data set.
        judged: the rows, with the classes of each output.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.parquet")
        write_rows(features, path)
        return [with_shape(score(version.saved_model, path, gates.load), judged) for version in versions]


def with_shape(scored: Scored | Unscored, judged: Judged) -> Scored | Unscored:
    """Return `scored`, if every output has a column, or one for each class of more than two; else why not."""
    if isinstance(scored, Unscored):
        return scored
    for name, values in scored.outputs.items():
        names = judged.names_of(name)
        columns = len(names) if len(names) > 2 else 1
        if values.shape[1:] != (columns,):
            reason = f"output {name} has {list(values.shape[1:])} values a row, expected {[columns]}"
            return Unscored(reason, scored.ready_seconds, scored.size)
    return scored


def true_values(
    recipe: ModelParams, output: str, dataset: Dataset, table: pa.Table, schema: PreparedSchema
) -> np.ndarray:
    """Return the class numbers, int64 [rows], or quantities, float64 [rows], of raw rows.

    Args:
        recipe: of the model.
        output: that learns them.
        dataset: whose rows they are.
        table: the rows.
        schema: of the prepared data; the median is that of its train split.
    """
    labels = to_values(table[dataset.target]).astype(np.int64 if dataset.class_names else np.float32)
    learned = get_target(recipe.target_of(output))
    target = learned.compute(labels, schema)
    return target.reshape(-1).astype(np.float64) if learned.task == "regression" else true_class(target)


def describe(version: Version, scored: Scored | Unscored, judged: Judged) -> Contender:
    """Return what the verdict says of a model.

    Args:
        version: the model.
        scored: what came of scoring it.
        judged: the rows.
    """
    facts = {"version": version.version, "commit": version.commit, "sha256": tree_sha256(version.saved_model)}
    if isinstance(scored, Unscored):
        measured = {"ready_seconds": scored.ready_seconds, "latency_ms": None, "rows_per_second": None}
        return Contender(**facts, **measured, size=scored.size, failure=scored.reason, metrics={})  # type: ignore[arg-type]
    outputs = sorted(scored.outputs, key=lambda name: name != MAIN_OUTPUT)
    metrics = {
        rows: {
            f"{metric_prefix(name)}{metric}": value
            for name in outputs
            for metric, value in judged.measure(scored, name, place).items()
        }
        for rows, place in judged.places.items()
        if len(place) > 1  # R2 of one row is none
    }
    measured = {
        "ready_seconds": round(scored.ready_seconds, 3),
        "latency_ms": round(scored.latency_ms, 3),
        "rows_per_second": float(round(scored.rows_per_second)),
    }
    return Contender(**facts, **measured, size=scored.size, failure=None, metrics=metrics)  # type: ignore[arg-type]


def limit_rules(described: list[Contender], gates: Gates) -> list[Rule]:
    """Return the rules of size and latency. described: the candidate, then the champion if there is one."""
    candidate, champion = described[0], described[1] if len(described) > 1 else None
    rules = [limit_rule("size", candidate.size, champion.size if champion else None, gates.size)]
    if candidate.latency_ms is not None:
        other = champion.latency_ms if champion else None
        rules.append(limit_rule("latency", candidate.latency_ms, other, gates.latency))
    return rules


def number_columns(dataset: Dataset, table: pa.Table) -> pd.DataFrame:
    """Return the features of raw rows that are numbers, in raw units."""
    tensors = {field.name for field in dataset.schema if isinstance(field.type, pa.FixedShapeTensorType)}
    columns = {name: to_values(table[name]) for name in dataset.features if name not in tensors}
    return pd.DataFrame(columns, index=range(table.num_rows))


judge_task = task(judge)
