"""The real data sets, from their loaders' caches: the rows are the published ones, and damage is named."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from config import paths
from config.params import load_params
from datasets import get_dataset
from runtime.errors import UserError
from tasks.arrivals.expectation_file import read_file
from tasks.arrivals.expectations import check_batch
from tasks.preparation.ingest import fetch, write_raw
from tests.support.workspaces import ROOT, edit_params


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "rows"), [("california_housing", 20_640), ("fashion_mnist", 70_000)])
def test_the_real_data_is_the_published_one(name, rows):
    table = fetch(get_dataset(name), "real")  # checks the checksum
    assert (table.num_rows, table.schema) == (rows, get_dataset(name).schema)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["line", "iris", "california_housing", "fashion_mnist"])
def test_real_rows_in_batches_of_any_size_meet_the_expectations_of_the_repository(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    dataset = get_dataset(name)
    rows, expectations = dataset.fetch(), read_file(dataset)
    rng = np.random.default_rng(0)
    for count in (12, 50, 1000):
        for _ in range(20 if count < rows.num_rows else 0):
            batch = rows.take(pa.array(rng.choice(rows.num_rows, count, replace=False)))
            assert check_batch(dataset, batch, expectations) == []
    assert check_batch(dataset, rows, expectations) == []


@pytest.mark.real_data
def test_raw_fashion_mnist_is_no_larger_than_its_source(tmp_path):
    dataset = get_dataset("fashion_mnist")
    write_raw(dataset, "real", dataset.fetch(), tmp_path)
    compressed_originals = 26_421_880 + 29_515 + 4_422_102 + 5_148  # bytes of the four .gz files
    assert (tmp_path / "fashion_mnist.parquet").stat().st_size <= compressed_originals


@pytest.mark.real_data
def test_a_damaged_housing_cache_is_told_with_the_file_to_delete(tmp_path, monkeypatch):
    from sklearn.datasets import get_data_home

    damaged = tmp_path / "cal_housing_py3.pkz"
    damaged.write_bytes(Path(get_data_home(), damaged.name).read_bytes()[:100_000])
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    with pytest.raises(UserError, match="is damaged") as caught:
        fetch(get_dataset("california_housing"), "real")
    assert str(damaged) in str(caught.value)


@pytest.mark.real_data
def test_a_damaged_fashion_cache_is_told_with_the_folder_to_delete(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    cache = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    copied = tmp_path / "fashion_mnist/3.0.1"
    shutil.copytree(Path(cache).expanduser() / "fashion_mnist/3.0.1", copied)
    [records] = copied.glob("*train.tfrecord*")
    records.chmod(0o600)
    records.write_bytes(records.read_bytes()[:20_000_000])
    builder = tfds.builder("fashion_mnist:3.0.1", data_dir=str(tmp_path))
    monkeypatch.setattr(tfds, "builder", lambda *_: builder)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(tfds, "load", lambda *_, **options: builder.as_dataset(split=options["split"], batch_size=-1))
    with pytest.raises(UserError, match="is damaged") as caught:
        fetch(get_dataset("fashion_mnist"), "real")
    assert str(copied) in str(caught.value)


@pytest.mark.real_data
def test_scikit_learns_network_gives_the_notes_figure_on_the_real_rows(workspace, run_flow):
    edit_params(workspace, data__source="real")
    edit_params(workspace, baselines={"mlp": sklearn_housing_mlp(workspace)}, notes={})
    for words in (("ingest", "california_housing"), ("prepare", "california_housing"), ("baselines",)):
        done = run_flow(*words)
        assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads((paths.BASELINES / "metrics.json").read_text())["mlp"]
    assert measured["metrics"]["valid"]["rmse"] == pytest.approx(0.50533266579, abs=1e-9)


def sklearn_housing_mlp(workspace: Path) -> dict:
    return load_params(workspace / "params.yaml").baselines["sklearn_housing_mlp"].model_dump(mode="json")
