"""A fault in params.yaml is refused with the key, the value and what would be valid."""

from fractions import Fraction

import pytest
from conftest import edit_params
from hypothesis import given
from hypothesis import strategies as st

from config.errors import UserError
from config.params import load_params, parse_share


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("models__housing_mlp__fit__epoch", 3, ["models.housing_mlp.fit", "'epoch'", "'epochs'", "batch_size"]),
        ("models__housing_mlp__fit__epochs", 0, ["models.housing_mlp.fit.epochs", "greater than 0", "got 0"]),
        ("models__housing_mlp__fit__epochs", "20", ["models.housing_mlp.fit.epochs", "integer", "'20'"]),
        ("models__housing_mlp__fit__epochs", None, ["models.housing_mlp.fit.epochs", "None"]),
        ("models__housing_mlp__fit__epochs", 1.5, ["models.housing_mlp.fit.epochs", "1.5"]),
        ("models__housing_mlp__compile__learning_rate", -1, ["compile.learning_rate", "greater than 0", "-1"]),
        ("models__housing_mlp__compile__optimizer", "adm", ["compile.optimizer", "'sgd' or 'adam'", "'adm'"]),
        ("models__housing_mlp__compile__loss", "binary_crossentropy", ["regression", "use mean_squared_error"]),
        ("models__housing_mlp__dataset", "houses", ["models.housing_mlp.dataset", "'houses'", "california_housing"]),
        ("datasets__iris__split__test", 1.5, ["datasets.iris.split.test", "less than 1", "1.5"]),
        ("datasets__iris__split__valid", "a/b", ["datasets.iris.split.valid", "such as 0.25 or 1/12", "'a/b'"]),
        ("datasets__iris__normalization", "log", ["datasets.iris.normalization", "'standard', 'clipped' or 'pixels'"]),
        ("datasets__iris__normalization", "clipped", ["datasets.iris", "'clipped' needs tail"]),
        ("datasets__california_housing__tail", 0.5, ["datasets.california_housing", "less than a half", "0.5"]),
        ("baselines__dummy_line__dataset", "lines", ["baselines.dummy_line.dataset", "Did you mean 'line'?"]),
        (
            "baselines__dummy_line__estimator",
            "svm",
            ["dummy_line.estimator", "'dummy', 'perceptron' or 'mlp'", "'svm'"],
        ),
        ("parity__housing_mlp__family", "cnn", ["parity.housing_mlp.family is 'cnn'", "the model's is 'mlp'"]),
        ("parity__housing_mlp__seeds", [], ["parity.housing_mlp.seeds", "at least 1 item"]),
        ("parity__housing_mlp__compile__loss", "binary_crossentropy", ["parity.housing_mlp", "use mean_squared_error"]),
        ("datasets__california_housing__tail", None, ["'clipped' needs"]),
        ("models__housing_mlp__fit__early_stopping", {"patience": 0}, ["early_stopping.patience", "greater than 0"]),
        ("models__housing_mlp__fit__class_weight", "even", ["fit.class_weight", "'balanced'", "'even'"]),
        ("models__housing_mlp__compile__average", 1.0, ["compile.average", "less than 1"]),
        ("data__source", "reel", ["data.source", "'real' or 'sample'", "'reel'"]),
        ("notes__housing", {}, ["notes", "'housing'", "Did you mean 'housing_mlp'?"]),
        ("seed", 2**32, ["seed", "less than 4294967296"]),
        ("models__housing_mlp__compile__learning_rate", float("inf"), ["learning_rate", "finite"]),
        ("models__linear_neuron__probes", {"a": {"x": float("nan")}}, ["probes.a.x", "finite"]),
        ("models__linear_neuron__inputs", {"my x": "all"}, ["linear_neuron.inputs", "my x"]),
        ("sed", 1, ["unknown parameter 'sed'", "Did you mean 'seed'?"]),
    ],
)
def test_a_faulty_value_is_named_with_its_key_and_the_valid_ones(workspace, key, value, told):
    edit_params(workspace, **{key: value})
    with pytest.raises(UserError) as caught:
        load_params()
    for part in ["params.yaml", *told]:
        assert part in str(caught.value)


def test_every_fault_is_told_at_once(workspace):
    edit_params(workspace, seed=-1, data__source="x")
    with pytest.raises(UserError, match=r"(?s)seed.*data\.source"):
        load_params()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seed: 2024-13-45", "cannot be read"),
        ("models: [", "line 1"),
        ("seed: 1\nseed: 2", "duplicate key"),
        ("", "params.yaml"),
        ("- 1", "params.yaml"),
    ],
)
def test_a_file_that_is_not_a_mapping_is_refused(workspace, text, told):
    (workspace / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=told):
        load_params()


def test_a_folder_in_its_place_is_refused(workspace):
    (workspace / "params.yaml").unlink()
    (workspace / "params.yaml").mkdir()
    with pytest.raises(UserError, match=r"params\.yaml is a folder"):
        load_params()


def test_a_missing_file_says_where_to_run(workspace):
    (workspace / "params.yaml").unlink()
    with pytest.raises(UserError, match="root of the project"):
        load_params()


def test_unknown_names_list_the_valid_ones(workspace):
    with pytest.raises(UserError, match=r"fashion_mlp, fashion_mlp_300, housing_mlp, .*linear_neuron"):
        load_params().model("mlp")
    with pytest.raises(UserError, match="california_housing, fashion_mnist, iris, line"):
        load_params().dataset("mnist")


@given(st.integers(1, 10**6), st.integers(2, 10**6))
def test_a_share_is_exact_whether_written_as_quotient_or_decimal(numerator, denominator):
    if numerator < denominator:
        assert parse_share(f"{numerator}/{denominator}") == Fraction(numerator, denominator)
        decimal = numerator / denominator
        assert parse_share(decimal) == Fraction(repr(decimal))
