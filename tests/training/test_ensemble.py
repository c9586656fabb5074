"""A model that is the mean of several networks."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from config.params import load_params
from models.common.outputs import named_outputs
from runtime.errors import UserError
from tasks.data.examples import Examples, read_examples
from tasks.data.normalization import read_normalization
from tasks.data.schema import read_schema
from tasks.evaluation.evaluate import evaluate_members
from tasks.publishing.export import describe_origin, export, sample_outputs, verify_export
from tasks.publishing.formats import convert
from tasks.training.ensemble import Trained, fit_model
from tasks.training.fit import fit
from tests.support.workspaces import edit_params

NAME = "housing_wide_deep_aux"  # with two outputs
SEEDS = [42, 7]


def train(folder: Path, **edits: object) -> tuple[Trained, dict[str, Examples]]:
    edits = {"seeds": SEEDS, "fit__epochs": 2, **edits}
    edit_params(folder, **{f"models__{NAME}__{key}": value for key, value in edits.items()})
    params = load_params().model(NAME)
    examples = {split: read_examples(params, split) for split in ("train", "valid")}
    hardware = load_params().hardware
    return fit_model(NAME, params, 1, hardware, examples, NAME, folder / "logs", folder / "checkpoints"), examples


def test_an_ensemble_is_the_mean_of_what_each_seed_gives_alone(prepared, tmp_path):
    trained, examples = train(prepared, export=["litert", "onnx"])
    params = load_params().model(NAME)
    found = named_outputs(trained.whole.model.predict(examples["valid"].x, verbose=0))
    alone = []
    for seed in SEEDS:
        fitted = fit(NAME, params.model_copy(update={"seeds": None}), seed, load_params().hardware, **examples)
        assert fitted.history == trained.members[seed].history
        alone.append(named_outputs(fitted.model.predict(examples["valid"].x, verbose=0)))
    assert set(found) == {"output", "aux"}
    for output, values in found.items():
        mean = np.mean([answers[output] for answers in alone], axis=0)
        assert np.abs(alone[0][output] - alone[1][output]).max() > 0.01
        assert values == pytest.approx(mean, abs=1e-5)
    assert trained.whole.history["loss"] == pytest.approx(
        np.mean([trained.members[seed].history["loss"] for seed in SEEDS], axis=0)
    )

    schema = read_schema(params.dataset)
    measured = evaluate_members(
        {seed: member.model for seed, member in trained.members.items()}, params, schema, 10**9, examples["valid"]
    )
    for seed in SEEDS:
        assert measured[seed]["valid"]["rmse"] == pytest.approx(trained.members[seed].history["val_rmse"][-1], rel=1e-5)
        assert set(measured[seed]) == {"valid", "test"}

    folder = tmp_path / "published"
    folder.mkdir()
    origin = describe_origin(NAME, params, schema, 1)
    export(trained.whole.model, params, read_normalization(params.dataset), origin, folder)
    sample = sample_outputs(trained.whole.model, examples["valid"])
    record, _ = verify_export(sample, params, schema.raw_sha256, convert(params.export, folder), folder)
    assert {name: found.file for name, found in record.formats.items()} == {
        "litert": "model.tflite",
        "onnx": "model.onnx",
    }
    again = keras.models.load_model(folder / "model.keras")
    values = named_outputs(again.predict(examples["valid"].x, verbose=0))
    assert values["aux"] == pytest.approx(found["aux"], abs=1e-5)


def test_an_interrupted_ensemble_goes_on_in_the_member_that_it_was_in(prepared, monkeypatch):
    whole, _ = train(prepared, fit__resume=True, compile__average=None)
    (prepared / "checkpoints").rename(prepared / "finished")
    calls = []

    def stop_in_the_second(self, epoch, logs=None):
        calls.append(epoch)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tasks.training.callbacks.EpochClock.on_epoch_end", stop_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            train(prepared, fit__resume=True, compile__average=None)
    resumed, examples = train(prepared, fit__resume=True, compile__average=None)
    assert len(resumed.whole.epoch_ends) < len(whole.whole.epoch_ends)
    assert resumed.whole.earlier_seconds > 0 == whole.whole.earlier_seconds
    assert resumed.whole.history == whole.whole.history
    one, two = (each.whole.model.predict(examples["valid"].x, verbose=0) for each in (whole, resumed))
    tf.nest.map_structure(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"seeds": [1, 1]}, "seeds: names one twice"),
        ({"seeds": [1]}, "at least 2"),
        ({"fit__early_stopping": {"patience": 3}}, "exclude each other"),
        ({"task": "binary", "compile__loss": "signed_half_squared_error"}, "a mean of -1 and 1 is neither"),
    ],
)
def test_seeds_that_make_no_ensemble_are_refused(prepared, edits, message):
    with pytest.raises(UserError, match=message):
        train(prepared, **edits)
