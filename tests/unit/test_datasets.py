"""Data sets: the sample has the real schema; the real rows are the published ones; damage is refused by name."""

from dataclasses import replace

import numpy as np
import pytest

from config import paths
from config.params import load_params
from datasets import dataset_names, get_dataset
from datasets.dataset import checksum, to_column, to_values
from runtime.errors import SourceUnreachableError, UserError
from tasks.preparation.ingest import fetch, is_unreachable, provenance, write_raw
from tests.support.workspaces import ROOT

NAMES = dataset_names()


@pytest.mark.parametrize("name", NAMES)
def test_the_sample_has_the_real_schema_and_is_the_same_every_time(name):
    dataset = get_dataset(name)
    first, second = dataset.generate(), dataset.generate()
    assert first.schema == dataset.schema
    assert first.equals(second)
    if dataset.class_names:
        assert set(to_values(first[dataset.target])) == set(range(len(dataset.class_names)))


@pytest.mark.parametrize("name", NAMES)
def test_the_sample_is_told_apart_from_the_real_data(name):
    dataset = get_dataset(name)
    facts = provenance(dataset, "sample", dataset.generate())
    assert facts.source == "sample"
    assert "not real" in facts.origin


def test_every_data_set_of_params_has_a_file_and_the_other_way_round():
    assert sorted(load_params().datasets) == NAMES


def test_an_unknown_data_set_lists_the_known_ones():
    with pytest.raises(UserError, match="fashion_mnist, iris, line"):
        get_dataset("mnist")


@pytest.mark.parametrize("name", ["line", "iris"])
def test_a_bundled_data_set_is_the_published_one(name):
    assert fetch(get_dataset(name), "real").num_rows == {"line": 12, "iris": 150}[name]


@pytest.mark.parametrize("name", ["california_housing", "fashion_mnist"])
def test_without_a_network_the_address_the_cache_variable_and_the_sample_are_named(name, tmp_path, monkeypatch):
    import socket

    import tensorflow_datasets as tfds  # before TFDS_DATA_DIR is changed, which it reads once for all tests

    def refuse(*_, **__):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    dataset = get_dataset(name)
    monkeypatch.setenv(dataset.cache, str(tmp_path))
    if name == "fashion_mnist":
        monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path), raising=False)
        builder = tfds.builder("fashion_mnist:3.0.1", data_dir=str(tmp_path))
        monkeypatch.setattr(tfds, "builder", lambda *_: builder)
    with pytest.raises(SourceUnreachableError) as caught:
        fetch(dataset, "real")
    for part in (name, "://", dataset.cache, "data.source: sample"):
        assert part in str(caught.value)


def test_altered_rows_are_refused_by_checksum():
    dataset = get_dataset("iris")
    altered = dataset.fetch().set_column(0, "sepal_length", to_column(np.zeros(150)))
    with pytest.raises(UserError, match="SHA-256"):
        fetch(replace(dataset, fetch=lambda: altered), "real")


def test_the_checksum_sees_values_types_and_names():
    table = get_dataset("iris").generate()
    seen = {checksum(table)}
    seen.add(checksum(table.rename_columns(["x", *table.column_names[1:]])))
    seen.add(checksum(table.set_column(0, "sepal_length", table["sepal_length"].cast("float32"))))
    seen.add(checksum(table.slice(1)))
    assert len(seen) == 4


def test_only_an_unreachable_source_is_tried_again():
    from prefect.states import Failed

    assert is_unreachable(None, None, Failed(data=SourceUnreachableError("x")))
    assert not is_unreachable(None, None, Failed(data=UserError("x")))


def test_raw_files_lie_where_the_next_stage_looks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = get_dataset("line")
    paths.RAW.mkdir(parents=True)
    write_raw(dataset, "sample", dataset.generate(), paths.RAW)
    assert paths.raw_table("line").exists()
    assert paths.raw_provenance("line").exists()


def test_every_real_data_set_says_what_it_is_not_for():
    from datasets import get_dataset

    for file in (ROOT / "datasets").glob("*.py"):
        if file.stem not in ("__init__", "dataset"):
            assert get_dataset(file.stem).limits.endswith(".")
