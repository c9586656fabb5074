"""Batches in the raw and prepared data: new rows follow those of the source, and a row keeps its split for ever."""

import json
import struct
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import paths
from config.params import load_params
from datasets import get_dataset
from datasets.dataset import SPLIT_COLUMN, checksum, to_values
from runtime.errors import UserError
from tasks.data.raw import read_provenance, read_raw
from tasks.data.schema import read_schema
from tasks.preparation.add_batches import NO_SPLIT, add_batches
from tasks.preparation.content import row_digests
from tasks.preparation.ingest import write_raw
from tasks.preparation.prepare import prepare, write_prepared
from tasks.preparation.split import place_new_rows
from tests.support.workspaces import ROOT

NAMES = ("line", "iris", "california_housing", "fashion_mnist")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return tmp_path


def put_batch(name: str, rows: pa.Table, number: int = 1) -> Path:
    place = paths.batches_folder(name)
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{number:04d}-night {number}.parquet"
    pq.write_table(rows.drop_columns(SPLIT_COLUMN) if SPLIT_COLUMN in rows.column_names else rows, path)
    return path


def new_rows(name: str, rows: int, seed: int = 0) -> pa.Table:
    """Return rows like those of the sample, none of which is there."""
    dataset, rng = get_dataset(name), np.random.default_rng(seed)
    like = dataset.generate()
    table = like.take(rng.integers(0, like.num_rows, rows))
    for feature in dataset.features:
        values = to_values(table[feature])
        noise = rng.integers(0, 256, values.shape) if values.dtype.kind == "u" else rng.normal(size=values.shape)
        column = pa.array((values + noise).tolist()) if values.ndim == 1 else None
        if column is None:
            column = pa.FixedShapeTensorArray.from_numpy_ndarray(noise.astype(np.uint8))
        table = table.set_column(table.schema.get_field_index(feature), feature, column)
    return table.cast(dataset.schema)


def ingest(name: str) -> pa.Table:
    dataset = get_dataset(name)
    paths.RAW.mkdir(parents=True, exist_ok=True)
    table, batches = add_batches(dataset, dataset.generate())
    write_raw(dataset, "sample", table, paths.RAW, batches)
    return read_raw(dataset, read_provenance(dataset).sha256)


def split_of_rows(name: str) -> dict[bytes, str]:
    """Return the split of each row's content, and check that no content is in two."""
    dataset = get_dataset(name)
    raw = ingest(name)
    made = prepare(dataset, load_params().dataset(name), raw, read_provenance(dataset))
    columns = [column for column in raw.column_names if column != SPLIT_COLUMN]
    contents = row_digests(raw, columns)
    found = {split: [contents[number] for number in to_values(table["index"])] for split, table in made.tables.items()}
    assert sum(map(len, found.values())) == raw.num_rows
    return {content: split for split, listed in found.items() for content in listed}


@pytest.mark.parametrize("name", NAMES)
def test_without_batches_both_raw_files_are_the_source_alone(folder, name):
    paths.batches_folder(name).mkdir(parents=True)
    dataset = get_dataset(name)
    source = dataset.generate()
    table, batches = add_batches(dataset, source)
    assert table is source
    assert batches == []
    paths.RAW.mkdir(parents=True)
    write_raw(dataset, "sample", table, paths.RAW, batches)
    assert [*json.loads(paths.raw_provenance(name).read_text())][-1] == "class_names"
    pq.write_table(source, "alone.parquet", compression="zstd", compression_level=13)
    assert paths.raw_table(name).read_bytes() == Path("alone.parquet").read_bytes()
    made = prepare(dataset, load_params().dataset(name), table, read_provenance(dataset))
    write_prepared(made, Path())
    assert "source_sha256" not in json.loads(Path("schema.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_new_rows_follow_those_of_the_source_and_equal_ones_are_counted(folder, name):
    dataset = get_dataset(name)
    source, fresh = dataset.generate(), new_rows(name, 8)
    put_batch(name, pa.concat_tables([source.slice(0, 3), fresh.slice(0, 5)]), 1)
    put_batch(name, pa.concat_tables([fresh.slice(4, 4), fresh.slice(7, 1)]), 2)
    raw = ingest(name)
    assert raw.slice(0, source.num_rows).equals(source)
    columns = [column for column in raw.column_names if column != SPLIT_COLUMN]
    assert raw.slice(source.num_rows).select(columns).equals(fresh.select(columns))
    if SPLIT_COLUMN in raw.column_names:
        assert set(raw.slice(source.num_rows)[SPLIT_COLUMN].to_pylist()) == {NO_SPLIT}
    facts = read_provenance(dataset)
    assert facts.batches is not None
    assert [(batch.rows, batch.new_rows, batch.duplicates) for batch in facts.batches] == [(8, 5, 3), (5, 3, 2)]
    assert (facts.source_rows, facts.rows) == (source.num_rows, source.num_rows + 8)
    assert facts.source_sha256 == checksum(source) != facts.sha256


def test_a_row_of_the_source_stays_even_if_the_source_has_it_twice(folder):
    dataset = get_dataset("iris")
    source = dataset.generate()
    doubled = pa.concat_tables([source, source.slice(0, 1)])
    put_batch("iris", source.slice(0, 1))
    table, [batch] = add_batches(dataset, doubled)
    assert table.num_rows == doubled.num_rows
    assert batch.duplicates == 1


def test_a_zero_with_another_sign_is_another_row(folder):
    rows = get_dataset("iris").generate().slice(0, 1)
    zeros = [rows.set_column(0, "sepal_length", pa.array([zero])) for zero in (0.0, -0.0)]
    put_batch("iris", pa.concat_tables(zeros))
    _, [batch] = add_batches(get_dataset("iris"), get_dataset("iris").generate())
    assert batch.new_rows == 2


def test_real_rows_with_batches_are_real_by_their_source(folder):
    dataset = get_dataset("iris")
    put_batch("iris", new_rows("iris", 5))
    table, batches = add_batches(dataset, dataset.fetch())
    paths.RAW.mkdir(parents=True)
    write_raw(dataset, "real", table, paths.RAW, batches)
    facts = read_provenance(dataset)
    assert facts.source_sha256 == dataset.sha256
    made = prepare(dataset, load_params().dataset("iris"), read_raw(dataset, facts.sha256), facts)
    paths.prepared_folder("iris").mkdir(parents=True)
    write_prepared(made, paths.prepared_folder("iris"))
    assert read_schema("iris").source_sha256 == dataset.sha256

    for file, key in ((paths.raw_provenance("iris"), "sha256"), (paths.prepared_folder("iris") / "schema.json", "raw")):
        values = json.loads(file.read_text())
        file.write_text(json.dumps({**values, "source_sha256": "0" * 64}))
        with pytest.raises(UserError, match=r"source_sha256: is 0{64}, but source is 'real'"):
            read_provenance(dataset) if key == "sha256" else read_schema("iris")
        file.write_text(json.dumps(values))
    values = json.loads(paths.raw_provenance("iris").read_text())
    for key in ("source_sha256", "source_rows", "batches"):
        paths.raw_provenance("iris").write_text(json.dumps({name: values[name] for name in values if name != key}))
        with pytest.raises(UserError, match="go together"):
            read_provenance(dataset)
    paths.raw_provenance("iris").write_text(json.dumps({**values, "source_rows": 149}))
    with pytest.raises(UserError, match="rows is 155, but there are 149 of the source and 5 new"):
        read_provenance(dataset)


def test_a_file_that_nobody_has_checked_is_no_batch(folder):
    path = put_batch("iris", new_rows("iris", 5))
    path.rename(path.with_name("mine.parquet"))
    with pytest.raises(UserError, match=r"mine\.parquet is no accepted batch.*Move it to data/incoming/iris"):
        add_batches(get_dataset("iris"), get_dataset("iris").generate())


def test_a_batch_that_was_damaged_after_it_was_accepted_is_named(folder):
    path = put_batch("iris", new_rows("iris", 5))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"0001-night 1\.parquet is not as it was accepted.*dvc checkout --force data/"):
        add_batches(get_dataset("iris"), get_dataset("iris").generate())


@pytest.mark.parametrize("name", NAMES)
def test_earlier_rows_keep_their_splits_when_batches_come(folder, name):
    before = split_of_rows(name)
    fresh = new_rows(name, 40)
    put_batch(name, fresh.slice(0, 15), 1)
    first = split_of_rows(name)
    put_batch(name, fresh.slice(10, 30), 2)
    second = split_of_rows(name)
    assert before.items() <= first.items() <= second.items()
    assert len(second) == len(before) + 40


def test_a_row_with_the_features_of_a_source_row_joins_its_split(folder):
    dataset = get_dataset("iris")
    source = dataset.generate()
    relabelled = source.set_column(4, "species", pa.array((to_values(source["species"]) + 1) % 3))
    put_batch("iris", relabelled)
    raw = ingest("iris")
    made = prepare(dataset, load_params().dataset("iris"), raw, read_provenance(dataset))
    features = row_digests(raw, dataset.features)
    first: dict[bytes, str] = {}
    split_of = {number: split for split, table in made.tables.items() for number in to_values(table["index"]).tolist()}
    for number in range(source.num_rows):
        first.setdefault(features[number], split_of[number])
    assert all(split_of[number] == first[features[number]] for number in range(source.num_rows, raw.num_rows))


contents = st.lists(st.binary(min_size=1, max_size=3), unique=True, min_size=1, max_size=60)


def digest_of(content: bytes) -> bytes:
    return row_digests(pa.table({"x": [content.hex()]}), ["x"])[0]


@given(contents, st.randoms(use_true_random=False), st.integers(1, 5), st.integers(3, 40))
def test_no_order_and_no_grouping_of_batches_changes_a_split(new, random, groups, source):
    rows = {split: np.arange(source)[number::3] for number, split in enumerate(paths.SPLITS)}
    of_source = [digest_of(b"source %d" % number) for number in range(source)]
    known: dict[bytes, str] = {}
    for _ in range(2):
        shuffled = random.sample(new, len(new))
        arrived: list[bytes] = []
        for start in range(0, len(shuffled), -(-len(shuffled) // groups)):
            arrived += shuffled[start : start + -(-len(shuffled) // groups)]
            digests = of_source + [digest_of(content) for content in arrived]
            placed = place_new_rows(rows, digests)
            assert sorted(np.concatenate(list(placed.values()))) == list(range(len(digests)))
            for split, numbers in placed.items():
                np.testing.assert_array_equal(numbers[: len(rows[split])], rows[split])
                for number in numbers[len(rows[split]) :]:
                    assert known.setdefault(digests[number], split) == split
    assert set(known) == {digest_of(content) for content in new}


def test_each_split_gets_its_share_of_the_new_rows():
    rows = {"train": np.arange(55), "valid": np.arange(55, 60), "test": np.arange(60, 70)}
    digests = [digest_of(b"%d" % number) for number in range(70 + 20_000)]
    placed = place_new_rows(rows, digests)
    shares = {split: (len(placed[split]) - len(rows[split])) / 20_000 for split in rows}
    for split, expected in {"train": 55 / 70, "valid": 5 / 70, "test": 10 / 70}.items():
        assert abs(shares[split] - expected) < 5 * (expected * (1 - expected) / 20_000) ** 0.5


def test_the_split_of_a_row_is_the_same_on_every_machine_and_by_every_version():
    x, y = np.array([0.0, 1.5, -2.25]), np.array([1, 2, 3])
    found = row_digests(pa.table({"x": x, "y": y}), ["x", "y"])
    assert found == [sha256(struct.pack("<dq", *row)).digest() for row in zip(x, y, strict=True)]
    rows = {"train": np.arange(6), "valid": np.arange(6, 9), "test": np.arange(9, 12)}
    first_bytes = [b"\0" * 8, b"\xff" * 7 + b"\x7f", b"\0" * 7 + b"\x80", b"\0" * 7 + b"\xc0", b"\xff" * 8]
    digests = [*map(digest_of, map(bytes, range(12))), *(begin + b"\0" * 24 for begin in first_bytes)]
    placed = {split: numbers.tolist() for split, numbers in place_new_rows(rows, digests).items()}
    assert placed == {"train": [*range(6), 12, 13], "valid": [*range(6, 9), 14], "test": [*range(9, 12), 15, 16]}
