"""Parity: train a model by the notes' own recipe, with several seeds and preparations, to compare figures."""

import logging
import tempfile
from pathlib import Path

import keras
import pandas as pd
import pyarrow as pa
from prefect import task

from config import paths
from config.params import DatasetParams, Hardware, ModelParams, Normalization
from datasets import get_dataset
from tasks.evaluate import measure
from tasks.examples import to_columns, to_examples
from tasks.files import write_json
from tasks.fit import fit
from tasks.prepare import prepare

logger = logging.getLogger(__name__)


def train_once(
    name: str,
    params: ModelParams,
    dataset: DatasetParams,
    normalization: Normalization,
    seed: int,
    hardware: Hardware,
    table: pa.Table,
    provenance: dict,
) -> tuple[dict, pd.DataFrame]:
    """Train model `name` by recipe `params` on raw rows prepared by `normalization`, and measure it.

    dataset: how its data set is split. table, provenance: of the raw rows.
    Returns the figures, and the history: a row an epoch.
    """
    prepared = prepare(
        get_dataset(params.dataset), dataset.model_copy(update={"normalization": normalization}), table, provenance
    )
    splits = {}
    for split, prepared_table in prepared.tables.items():
        columns = to_columns(params, prepared_table, paths.prepared_table(params.dataset, split))
        splits[split] = to_examples(params, columns, prepared.schema)
    logger.info("%s: seed %d, %s", name, seed, normalization)
    keras.backend.clear_session()
    with tempfile.TemporaryDirectory() as folder:
        fitted = fit(
            name,
            params,
            seed,
            hardware,
            splits["train"],
            splits["valid"],
            provenance["source"],
            None,
            Path(folder, "checkpoints"),
        )
    history = pd.DataFrame({"normalization": normalization, "seed": seed, **fitted.history})
    history.insert(2, "epoch", range(1, len(history) + 1))
    figures = {
        "normalization": normalization,
        "seed": seed,
        "epochs": len(history),
        "metrics": measure(fitted.model, params, prepared.schema, splits).metrics,
    }
    return figures, history


def write_parity(name: str, provenance: dict, runs: list[tuple[dict, pd.DataFrame]], folder: Path) -> None:
    """Write `metrics.json` and `history.csv`, the figures and the curves of every run of `train_once`."""
    figures, histories = zip(*runs, strict=True)
    facts = {"name": name, "source": provenance["source"], "raw_sha256": provenance["sha256"], "runs": list(figures)}
    write_json(folder / "metrics.json", facts)
    pd.concat(histories).to_csv(folder / "history.csv", index=False)


train_once_task = task(task_run_name="{name}-{normalization}-seed-{seed}")(train_once)
write_parity_task = task(write_parity)
