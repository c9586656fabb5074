"""Settings of a run (--set): what fits changes one value, what does not is one message."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from orchestration.settings import override
from runtime.errors import UserError
from tests.support.workspaces import make_workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("messages"))


@pytest.fixture
def place(made, monkeypatch) -> Path:
    """A workspace in which no test changes a file for the next one; it is the current directory."""
    monkeypatch.chdir(made)
    return made


def values(text: str) -> dict:
    return YAML(typ="safe").load(text)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("models.iris_mlp.fit.epoch=3", "it does not have: unknown parameter 'epoch'. Did you mean 'epochs'?"),
        ("model.iris_mlp.fit.epochs=3", "'model'. Did you mean 'models'?"),
        ("models.iris_mpl.fit.epochs=3", "'iris_mpl'. Did you mean 'iris_mlp'?"),
        ("~models.fashion_cnn.fit.resum", "'resum'. Did you mean 'resume'?"),
        ("+models.iris_mpl.fit.resume=true", "'iris_mpl'. Did you mean 'iris_mlp'?"),
        ("+models.iris_mlp.fit.resum=true", "unknown parameter 'resum'. Did you mean 'resume'?"),
        ("+models.iris_mlp.fit.epochs=3", "is there already: leave out the +"),
        ("models.iris_mlp.fit.resume=true", "or +KEY=VALUE to add one that it does not have"),
        ("models.iris_mlp.fit.epochs=0", "models.iris_mlp.fit.epochs: Input should be greater than 0, got 0"),
        ("models.iris_mlp.family=mpl", "unknown family 'mpl'. Did you mean 'mlp'?"),
        ("models.iris_mlp.build.hidden.0=5", "is a list, which is given whole"),
        ("models.iris_mlp.build={hiden:[5]}", "Did you mean 'hidden'?"),
        ("seed.x=4", "seed is a value and holds no 'x'"),
        ("~models.fashion_cnn.fit.resume=false", "is True, not False"),
        ("seed 7", "expected KEY=VALUE"),
        ("seed", "expected KEY=VALUE"),
        ("", "expected KEY=VALUE"),
        ("=7", "expected KEY=VALUE"),
        ("seed@model=7", "expected KEY=VALUE"),
        ("models/iris_mlp=7", "expected KEY=VALUE"),
        ("seed=[1,2", "stands in quotes"),
        ("seed=" + "[" * 5000, "stands in quotes"),
        ("a" * 5000 + "=1", "characters"),
        ("seed=1,2,3", "one value each: run once for each of several"),
        ("seed=range(1,3)", "one value each: run once for each of several"),
        ("seed=choice(1,2)", "one value each: run once for each of several"),
        ("seed=glob(*)", "one value each: run once for each of several"),
        ("seed=interval(1,2)", "one value each: run once for each of several"),
    ],
)
def test_a_setting_that_does_not_fit_is_told_in_one_line(place, setting, told):
    with pytest.raises(UserError) as caught:
        override([setting])
    message = str(caught.value)
    assert message.startswith("--set ")
    assert told in message
    assert "\n" not in message
    assert len(message) < 800


@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:SECRET_OF_A_TEST}",
        "'${oc.env:SECRET_OF_A_TEST}'",
        '"${oc.env:SECRET_OF_A_TEST}"',
        "\\${oc.env:SECRET_OF_A_TEST}",
        "x${oc.env:SECRET_OF_A_TEST}y",
        "[${oc.env:SECRET_OF_A_TEST}]",
        "{a:${oc.env:SECRET_OF_A_TEST}}",
        "${oc.decode:${oc.env:SECRET_OF_A_TEST}}",
        "${models.iris_mlp.dataset}",
        "${.dataset}",
        "${seed}",
    ],
)
@pytest.mark.parametrize("key", ["models.iris_mlp.family", "+models.iris_mlp.build.secret", "++models.iris_mlp.family"])
def test_a_setting_replaces_nothing_and_shows_no_environment_variable(place, monkeypatch, key, value):
    monkeypatch.setenv("SECRET_OF_A_TEST", "hunter2")
    with pytest.raises(UserError, match=r"\$\{\.\.\.\} is not replaced") as caught:
        override([f"{key}={value}"])
    assert "hunter2" not in str(caught.value)
    assert not [file for file in place.rglob("*.yaml") if "hunter2" in file.read_text()]


def test_params_yaml_replaces_nothing_under_a_setting(workspace, monkeypatch):
    monkeypatch.setenv("SECRET_OF_A_TEST", "hunter2")
    file = workspace / "params.yaml"
    file.write_text(file.read_text() + "\n# ${oc.env:SECRET_OF_A_TEST}\n")
    assert "hunter2" not in override(["seed=7"])  # a comment is one
    file.write_text(file.read_text().replace("family: cnn", "family: ${oc.env:SECRET_OF_A_TEST}"))
    with pytest.raises(UserError, match=r"models\.fashion_cnn\.family: .* is not replaced") as caught:
        override(["seed=7"])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "key", "value"),
    [
        ("models.iris_mlp.fit.epochs=7", "models.iris_mlp.fit.epochs", 7),
        ("+models.iris_mlp.fit.resume=true", "models.iris_mlp.fit.resume", True),
        ("++models.iris_mlp.fit.epochs=7", "models.iris_mlp.fit.epochs", 7),
        ("~models.fashion_cnn.fit.resume", "models.fashion_cnn.fit", {"epochs": 1, "batch_size": 64}),
        ("models.iris_mlp.build.hidden=[10,5]", "models.iris_mlp.build.hidden", [10, 5]),
        ("models.iris_mlp.build={hidden:[5]}", "models.iris_mlp.build.outputs", 3),
        ("datasets.iris.split.test=1/12", "datasets.iris.split.test", "1/12"),
        ("models.iris_mlp.compile.learning_rate=1e-3", "models.iris_mlp.compile.learning_rate", 0.001),
        ("hardware.memory='800 MB'", "hardware.memory", "800 MB"),
        ("+models.iris_mlp.probes={flower: {sepal_length: 1}}", "models.iris_mlp.probes.flower.sepal_length", 1),
        ("~models.iris_perceptron.probes", "models.iris_perceptron.family", "perceptron"),
    ],
)
def test_a_setting_that_fits_changes_its_value_alone_and_writes_nothing(place, setting, key, value):
    before = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    changed = values(override([setting]))
    found: object = changed
    for name in key.split("."):
        found = found[name]
    assert found == value
    original = values((place / "params.yaml").read_text())
    section = key.split(".")[:2]
    if len(section) == 2:
        del changed[section[0]][section[1]], original[section[0]][section[1]]
    assert changed == original
    assert {file: file.read_bytes() for file in place.rglob("*") if file.is_file()} == before


def test_several_settings_apply_one_after_the_other(place):
    changed = values(override(["+models.iris_mlp.fit.resume=true", "models.iris_mlp.fit.resume=false", "seed=7"]))
    assert (changed["models"]["iris_mlp"]["fit"]["resume"], changed["seed"]) == (False, 7)
