"""A fault in params.yaml is refused with the key, the value and what would be valid."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.params import load_params, parse_share
from runtime.errors import UserError
from tests.support.workspaces import edit_params


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("models__housing_mlp__fit__epoch", 3, ["models.housing_mlp.fit", "'epoch'", "'epochs'", "batch_size"]),
        ("models__housing_mlp__fit__epochs", 0, ["models.housing_mlp.fit.epochs", "greater than 0", "got 0"]),
        ("models__housing_mlp__fit__epochs", "20", ["models.housing_mlp.fit.epochs", "integer", "'20'"]),
        ("models__housing_mlp__fit__epochs", None, ["models.housing_mlp.fit.epochs", "None"]),
        ("models__housing_mlp__fit__epochs", 1.5, ["models.housing_mlp.fit.epochs", "1.5"]),
        ("models__housing_mlp__compile__learning_rate", -1, ["compile.learning_rate", "greater than 0", "-1"]),
        ("models__housing_mlp__compile__optimizer", "adm", ["compile.optimizer", "'sgd', 'adam' or 'adamw'", "'adm'"]),
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
            ["dummy_line.estimator", "'dummy', 'perceptron', 'mlp' or 'gradient_boosting'", "'svm'"],
        ),
        (
            "lecture_recipes__housing_mlp__family",
            "cnn",
            ["lecture_recipes.housing_mlp.family is 'cnn'", "the model's is 'mlp'"],
        ),
        ("lecture_recipes__housing_mlp__seeds", [42, 42], ["lecture_recipes.housing_mlp.seeds", "names one twice"]),
        ("lecture_recipes__housing_mlp__seeds", [], ["lecture_recipes.housing_mlp.seeds", "at least 1 item"]),
        (
            "lecture_recipes__housing_mlp__compile__loss",
            "binary_crossentropy",
            ["lecture_recipes.housing_mlp", "use mean_squared_error"],
        ),
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
        ("models__iris_mlp__family", "mpl", ["models.iris_mlp.family", "unknown family 'mpl'. Did you mean 'mlp'?"]),
        ("models__iris_mlp__target", "clas", ["models.iris_mlp.target", "'clas'. Did you mean 'class'?"]),
        ("models__iris_mlp__inputs", {"x": "al"}, ["models.iris_mlp.inputs", "'al'. Did you mean 'all'?"]),
        ("models__iris_mlp__fit__sample_weight", "half", ["fit.sample_weight", "'half'", "capped_values_half"]),
        (
            "models__iris_mlp__build",
            {"hiden": [3], "outputs": 3},
            ["iris_mlp.build", "Did you mean 'hidden'? mlp takes:"],
        ),
        ("models__iris_mlp__build", {"hidden": [3]}, ["iris_mlp.build", "needs outputs"]),
        ("baselines__dummy_line__target", "valu", ["baselines.dummy_line.target", "Did you mean 'value'?"]),
        ("baselines__dummy_line__inputs", "al", ["baselines.dummy_line.inputs", "Did you mean 'all'?"]),
        ("datasets__irish", {"normalization": "none", "split": {"seed": 1}}, ["'irish'. Did you mean 'iris'?"]),
        ("models__iris_mlp__fit__epochs", 10**18, ["iris_mlp.fit.epochs", "equal to 1000000"]),
        ("models__iris_mlp__fit__batch_size", 10**12, ["iris_mlp.fit.batch_size", "equal to 1000000"]),
        ("models__iris_mlp__fit__early_stopping", {"patience": 10**18}, ["patience", "equal to 1000000"]),
        ("models__iris_mlp__build__hidden", [10**12], ["iris_mlp.build", "at most 2147483647, not 1000000000000"]),
        ("models__iris_mlp__build__hidden", [1] * 1001, ["iris_mlp.build", "at most 1000 entries, not 1001"]),
        ("models__iris_mlp__compile__learning_rate", 10**400, ["learning_rate", "401 characters"]),
        ("hardware__threads", 10**6, ["hardware.threads", "equal to 1024"]),
        ("hardware__memory", f"{'9' * 400} GB", ["hardware.memory", "such as 800 MB"]),
        ("datasets__iris__split__test", "1e-999999999", ["datasets.iris.split.test", "such as 0.25 or 1/12"]),
        (
            "lecture_recipes__housing_mlp__seeds",
            [42] * 1001,
            ["lecture_recipes.housing_mlp.seeds", "at most 1000 items"],
        ),
        ("baselines__sklearn_iris_mlp__arguments", {"hidden_layer_sizes": [10**9]}, ["hidden_layer_sizes", "10000"]),
        ("baselines__sklearn_iris_mlp__arguments", {"max_iter": 10**18}, ["arguments", "2147483647"]),
        ("models__" + "a" * 300, {}, ["at most 64 characters", "(300 characters)"]),
        ("models__fashion_cnn__family", "${oc.env:HOME}", ["models.fashion_cnn.family", "${...} is not replaced"]),
        ("models__fashion_cnn__family", "${seed}", ["models.fashion_cnn.family", "${...} is not replaced"]),
        ("retention__runs_days", 0, ["retention.runs_days", "greater than or equal to 1", "got 0"]),
        ("retention__cache_days", "never", ["retention.cache_days", "valid integer", "got 'never'"]),
        ("retention__experiments", -1, ["retention.experiments", "greater than or equal to 0", "got -1"]),
        ("retention__log_size", "10 parrots", ["retention.log_size", "such as 10 MB", "'10 parrots'"]),
        ("retention__days", 3, ["retention", "unknown parameter 'days'", "Did you mean 'runs_days'?"]),
        ("gates__irish", {}, ["gates", "unknown dataset 'irish'. Did you mean 'iris'?"]),
        ("gates__iris", {"margins": 0.1}, ["gates.iris", "unknown parameter 'margins'. Did you mean 'margin'?"]),
        ("gates__iris", {"margin": 0}, ["gates.iris.margin", "greater than 0", "got 0"]),
        ("gates__iris", {"drift": "stop"}, ["gates.iris.drift", "'warn' or 'block'", "'stop'"]),
        ("gates__iris", {"size": {"most": "10 parrots"}}, ["gates.iris.size.most", "such as 10 MB", "'10 parrots'"]),
        ("gates__iris", {"latency": {"growth": 0.5}}, ["gates.iris.latency.growth", "greater than or equal to 1"]),
        ("gates__iris", {"load": {"second": 3}}, ["gates.iris.load", "Did you mean 'seconds'?"]),
        ("gates__iris", {"draws": 10}, ["gates.iris.draws", "greater than or equal to 1000"]),
        ("gates__iris", {"models": {"housing_mlp": {}}}, ["gates.iris.models", "'housing_mlp'", "iris_mlp"]),
        (
            "gates__iris",
            {"models": {"iris_mlp": {"absolute": {"rmse": 1}}}},
            ["gates.iris.models.iris_mlp.absolute", "unknown metric 'rmse'", "accuracy"],
        ),
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
        ("seed: &s [*s]", r"line 1: the alias \*s refers to what it is in"),
        ("models: &m\n  a: {b: *m}", r"line 2: the alias \*m refers to what it is in"),
        ("seed: " + "[" * 60 + "]" * 60, "more than 50 deep"),
        ("seed: " + "[" * 5000 + "]" * 5000, "more than 50 deep"),
        (f"seed: [{'1, ' * 400_000}1]", "1,200,009 characters; at most 1,000,000"),
        (f"seed: [{'1, ' * 110_000}1]", "more than 100,000 values"),
    ],
)
def test_a_file_that_is_not_a_mapping_is_refused(workspace, text, told):
    (workspace / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=told):
        load_params()


@pytest.mark.parametrize("entry", ["[{}]", "{{<<: [{}]}}"])
def test_aliases_that_stand_for_a_billion_values_are_refused_in_one_line(workspace, entry):
    levels = [f"a{n}: &a{n} {entry.format(', '.join([f'*a{n - 1}'] * 10))}" for n in range(1, 10)]
    (workspace / "params.yaml").write_text("\n".join(["a0: &a0 {k: 1}", *levels]))
    with pytest.raises(UserError, match=r"^[^\n]*more than 100,000 values, with what its aliases stand for\.$"):
        load_params()


def test_an_alias_may_stand_for_a_recipe(workspace):
    file = workspace / "params.yaml"
    text = file.read_text().replace("  iris_mlp:\n", "  iris_mlp: &iris\n", 1)
    file.write_text(
        text.replace("\n  fashion_mlp:\n", "\n  iris_two: {<<: *iris, target: one_hot}\n\n  fashion_mlp:\n", 1)
    )
    assert load_params().model("iris_two").build == load_params().model("iris_mlp").build


def test_a_file_full_of_faults_is_told_in_a_few_lines(workspace):
    faulty = {f"m{number}": {"family": 3} for number in range(100)}
    edit_params(workspace, models=faulty)
    with pytest.raises(UserError) as caught:
        load_params()
    assert len(str(caught.value).splitlines()) == 21
    assert str(caught.value).endswith("more faults")


@pytest.mark.parametrize(
    ("file", "text", "key", "value"),
    [
        ("models/mine.py", "def build(inputs, name, **arguments): ...", "models__iris_mlp__build", {"anything": 1}),
        ("models/mine.py", "from models.mlp import build", "models__iris_mlp__build", {"hidden": [], "outputs": 3}),
        ("models/mine.py", "def build(inputs, name, *, units=3): ...", "models__iris_mlp__build", {"units": 3}),
        ("models/mine.py", "def build(", "models__iris_mlp__build", {"told": "when it is imported"}),
        (
            "models/common/features.py",
            "FEATURES = {}\nFEATURES['mine'] = 1",
            "models__iris_mlp__inputs",
            {"features": "mine"},
        ),
        ("models/common/features.py", "FEATURES = make_features()", "models__iris_mlp__inputs", {"features": "mine"}),
        (
            "models/common/features.py",
            "OLD = {}\nFEATURES = {**OLD, 'a': 1}",
            "models__iris_mlp__inputs",
            {"features": "mine"},
        ),
    ],
)
def test_what_the_codes_text_does_not_tell_is_not_refused(workspace, file, text, key, value):
    (workspace / file).write_text(text)
    edit_params(workspace, **{key: value})
    if file == "models/mine.py":
        edit_params(workspace, models__iris_mlp__family="mine")
    assert load_params().model("iris_mlp")


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
    with pytest.raises(UserError, match=r"fashion_mlp_300, .*fashion_mlp_tuned, .*housing_mlp, .*linear_neuron"):
        load_params().model("mlp")
    with pytest.raises(UserError, match="california_housing, fashion_mnist, iris, line, logic"):
        load_params().dataset("mnist")


@given(st.integers(1, 10**6), st.integers(2, 10**6))
def test_a_share_is_exact_whether_written_as_quotient_or_decimal(numerator, denominator):
    if numerator < denominator:
        assert parse_share(f"{numerator}/{denominator}") == Fraction(numerator, denominator)
        decimal = numerator / denominator
        assert parse_share(decimal) == Fraction(repr(decimal))


def test_a_data_set_without_gates_has_the_defaults_and_a_model_has_its_own_or_those_of_its_data_set(workspace):
    edit_params(workspace, gates={"iris": {"margin": 0.2, "models": {"iris_mlp": {"slice_margin": 0.3}}}})
    params = load_params()
    assert params.gates_of("line").drift == "warn"
    assert (params.gates_of("iris").of("iris_mlp").margin, params.gates_of("iris").of("iris_mlp").slice_margin) == (
        0.2,
        0.3,
    )
    assert params.gates_of("iris").of("iris_perceptron").slice_margin == params.gates_of("line").slice_margin
    assert params.gates_of("iris").size.most == 2_000_000_000
