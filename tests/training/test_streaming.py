"""Streaming: rows from disk train and measure as rows in memory do, and the order of an epoch takes each once."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import paths
from config.params import load_params
from runtime.errors import UserError
from tasks.data import streaming as stream
from tasks.data.examples import Examples, join, read_examples
from tasks.data.files import read_table, write_table
from tasks.data.schema import BATCH_ROWS, GROUP_ROWS, read_schema
from tasks.data.streaming import Stream, open_split
from tasks.evaluation.evaluate import evaluate
from tasks.training import fit as fitting
from tasks.training import fused_steps as fused
from tasks.training import shuffling as batches
from tasks.training.shuffling import EpochOrder, block_rows, shuffled_blocks
from tests.support.workspaces import edit_params

GROUP = 64
FEW = {"epochs": 2, "batch_size": 32}


@pytest.fixture
def small_groups(prepared, monkeypatch):
    """The prepared tables in row groups of 64 rows, mixed three at a time, so that the sample has many."""
    for module in (batches, fitting, stream):
        monkeypatch.setattr(module, "GROUP_ROWS", GROUP)
    for module in (batches, fused):
        monkeypatch.setattr(module, "BATCH_ROWS", GROUP)
    for limit in ("WHOLE_GROUPS", "WINDOW_GROUPS"):
        monkeypatch.setattr(batches, limit, 3)
    for file in sorted(paths.PREPARED.glob("*/*.parquet")):
        table = read_table(file, "")
        file.unlink()  # it is mapped into memory
        write_table(file, table, GROUP)
    return prepared


@given(
    rows=st.integers(1, 5000),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 1000),
    window=st.integers(1, 20),
    whole=st.integers(1, 20),
)
def test_an_epoch_takes_every_row_once(rows, seed, epoch, window, whole):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "GROUP_ROWS", GROUP)
        patch.setattr(batches, "WINDOW_GROUPS", window)
        patch.setattr(batches, "WHOLE_GROUPS", whole)
        order = EpochOrder(rows, seed)
        drawn = order.draw(epoch)
        np.testing.assert_array_equal(np.sort(drawn), np.arange(rows))
        np.testing.assert_array_equal(order.draw(epoch), drawn)
        first = 0
        for groups, permutation in order.windows(epoch):  # all that is needed at a time
            assert len(groups) <= max(window, whole)
            assert {*(drawn[first : first + len(permutation)] // GROUP)} == {*groups}
            first += len(permutation)


@pytest.mark.parametrize("block", [1, 7, 64, 100, 1000])
def test_blocks_from_disk_are_those_from_memory(small_groups, block):
    params = load_params().model("housing_wide_deep_two_inputs")
    memory, disk = read_examples(params, "train"), open_split(params, "train", 1)
    assert isinstance(disk, Stream)
    order = EpochOrder(memory.rows, 3)
    for epochs in ([0], [4, 5]):
        one, other = (list(shuffled_blocks(split, order, epochs, block)) for split in (memory, disk))
        assert [part.rows for part in one] == [part.rows for part in other]
        whole, same = join(one), join(other)
        np.testing.assert_array_equal(whole.index, same.index)
        assert len(whole.index) == len(epochs) * memory.rows
        for name, values in whole.inputs.items():
            np.testing.assert_array_equal(values, same.inputs[name])


@pytest.mark.rotates
@pytest.mark.parametrize(
    ("name", "execution"),
    [
        ("housing_mlp", "graph"),
        pytest.param("housing_mlp", "batches", marks=pytest.mark.slow),
        pytest.param("housing_wide_deep_aux", "graph", marks=pytest.mark.slow),
        pytest.param("housing_wide_deep_aux", "batches", marks=pytest.mark.slow),
        pytest.param("multi_input_cnn", "graph", marks=pytest.mark.slow),
        pytest.param("multi_input_cnn", "batches", marks=pytest.mark.slow),
        pytest.param("fashion_cnn", "graph", marks=pytest.mark.slow),
        pytest.param("fashion_cnn", "batches", marks=pytest.mark.slow),
    ],
)
def test_a_model_trained_and_measured_from_disk_is_that_from_memory(small_groups, tmp_path, name, execution):
    edit_params(small_groups, **{f"models__{name}__compile__average": None})
    if name == "multi_input_cnn":
        edit_params(small_groups, **{f"models__{name}__fit__class_weight": "balanced"})
    if name == "fashion_cnn":
        build = {"blocks": [{"filters": 4, "kernel": 3}], "hidden": [8], "outputs": 10, "output_activation": "softmax"}
        build |= {"mirror": True, "augment": {"shift": 2, "flip": True, "erase": 6}}
        edit_params(small_groups, models__fashion_cnn__build=build, models__fashion_cnn__fit=FEW)
    params = load_params()
    recipe, schema = params.model(name), read_schema(params.model(name).dataset)
    hardware = params.hardware.model_copy(update={"execution": execution, "precision": "float32"})
    fitted, measured = [], []
    for memory in (10**12, 1):
        splits = {split: open_split(recipe, split, memory) for split in ("train", "valid")}
        assert isinstance(splits["train"], Examples if memory > 1 else Stream)
        folders = {"logs": None, "checkpoints": tmp_path / "checkpoints"}
        fitted.append(fitting.fit(name, recipe, 42, hardware, **splits, **folders))
        measured.append(evaluate(fitted[-1].model, recipe, schema, memory, **splits))
    for one, other in zip(fitted[0].model.get_weights(), fitted[1].model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert fitted[0].history["loss"] == fitted[1].history["loss"]
    for split, figures in measured[0].metrics.items():
        assert measured[1].metrics[split] == pytest.approx(figures, rel=1e-5)
    np.testing.assert_allclose(
        measured[0].predictions.to_numpy(), measured[1].predictions.to_numpy(), rtol=1e-4, atol=1e-6
    )


def test_what_fits_stays_in_memory(small_groups):
    params = load_params().model("housing_mlp")
    train = read_examples(params, "train")
    size = train.inputs["features"].nbytes
    assert isinstance(open_split(params, "train", size), Examples)
    assert isinstance(open_split(params, "train", size - 1), Stream)


def test_validation_batches_divide_row_groups():
    assert GROUP_ROWS % BATCH_ROWS == 0


def test_a_block_holds_whole_batches_and_no_more_than_the_split(small_groups):
    params = load_params().model("housing_mlp")
    train = read_examples(params, "train")
    assert block_rows(train, 32) == -(-train.rows // 32) * 32


def test_row_groups_that_cannot_be_streamed_are_refused_with_the_stage_to_run(small_groups):
    params = load_params().model("housing_mlp")
    path = paths.prepared_table("california_housing", "train")
    table = read_table(path, "")
    path.unlink()
    write_table(path, table, 100)
    with pytest.raises(UserError, match=r"row groups are not of 64 rows.*prepare@california_housing"):
        open_split(params, "train", 1)


def test_a_file_damaged_in_the_middle_is_told_by_name(small_groups):
    params = load_params().model("housing_mlp")
    disk = open_split(params, "train", 1)
    path = paths.prepared_table("california_housing", "train")
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"(?s)train\.parquet.*prepare@california_housing"):
        keras.tree.flatten([part.target for part in disk.parts()])


@pytest.mark.parametrize("execution", ["graph", "batches"])
def test_a_file_damaged_while_it_is_trained_on_is_told_without_tensorflow(small_groups, tmp_path, execution):
    params = load_params()
    recipe = params.model("housing_mlp")
    hardware = params.hardware.model_copy(update={"execution": execution})
    train, valid = (open_split(recipe, split, 1) for split in ("train", "valid"))
    content = bytearray(train.path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    train.path.write_bytes(content)
    with pytest.raises(UserError, match=r"(?s)train\.parquet.*prepare@california_housing"):
        fitting.fit("housing_mlp", recipe, 42, hardware, train, valid, None, None, tmp_path / "checkpoints")
