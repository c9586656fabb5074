"""What a mistake is answered with: one message that names the place and the remedy, before anything is started."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import DVC, edit_params, make_repository, make_workspace
from ruamel.yaml import YAML

from orchestration.settings import override
from runtime.errors import UserError


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
    assert len(message) < 600


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
        ("~models.fashion_cnn.fit.resume", "models.fashion_cnn.fit", {"epochs": 1, "batch_size": 32}),
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory, settings) -> Path:
    """A git and DVC repository in which one small model is up to date."""
    folder = tmp_path_factory.mktemp("trained") / "with a space"
    return make_repository(folder, settings, [*DVC, "repro", "--quiet", "train@linear_neuron"])


@pytest.fixture
def run(trained, settings) -> Callable[..., subprocess.CompletedProcess]:
    """Run a command there without a Prefect server; a server of its own would leave its log in .prefect."""
    environment = {name: value for name, value in settings.items() if name != "PREFECT_API_URL"}

    def run(*words: str, folder: Path = trained) -> subprocess.CompletedProcess:
        shutil.rmtree(folder / ".prefect", ignore_errors=True)
        return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    return run


PIPELINE = (sys.executable, "-m", "flows.pipeline")
ONE = "train@linear_neuron"


def test_dry_shows_the_plan_with_the_settings_and_changes_nothing(run, trained):
    kept = {file: file.read_bytes() for file in trained.rglob("*.*") if file.is_file() and ".dvc/" not in str(file)}
    assert run(*PIPELINE, "--dry", ONE).stdout == ""
    assert run(*PIPELINE, "--dry", ONE, "--set", "models.linear_neuron.fit.epochs=7").stdout == f"{ONE}: changed\n"
    assert run(*PIPELINE, "--dry", ONE, "--set", "models.iris_mlp.fit.epochs=7").stdout == ""
    planned = run(*PIPELINE, "--dry", ONE, "--set", "datasets.line.split.seed=7").stdout.splitlines()
    assert planned == ["prepare@line: changed", f"{ONE}: if prepare@line ends with other outputs"]
    assert run("git", "status", "--porcelain").stdout == ""
    now = {file: file.read_bytes() for file in trained.rglob("*.*") if file.is_file() and ".dvc/" not in str(file)}
    assert {str(file) for file, data in now.items() if kept.get(file) != data and file.suffix != ".pyc"} == set()


@pytest.mark.parametrize("dry", [(), ("--dry",)])
@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("models.linear_neuron.fit.epoch=3", "Did you mean 'epochs'?"),
        ("models.linear_neuron.fit.epochs=1,2", "one value each"),
        ("models.linear_neuron.family=${oc.env:HOME}", "is not replaced"),
        ("models.linear_neuron.family=mpl", "unknown family 'mpl'. Did you mean 'mlp'?"),
    ],
)
def test_a_wrong_setting_is_one_line_before_a_server_is_started(run, trained, dry, setting, told):
    done = run(*PIPELINE, *dry, ONE, "--set", setting)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: --set {setting}: ")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not [*(trained / ".prefect").glob("*")]
    assert run("git", "status", "--porcelain").stdout == ""


def test_a_folder_without_git_or_dvc_says_what_to_run(run, trained, tmp_path):
    folder = tmp_path / "a copy"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns(".git", "data", "cache"))
    for words in (["--dry"], [ONE], ["--set", "seed=7"]):
        done = run(*PIPELINE, *words, folder=folder)
        assert done.returncode == 1
        assert "is not in a git repository: run `git init`, or `dvc config core.no_scm true`" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert subprocess.run([*DVC, "config", "core.no_scm", "true"], cwd=folder, check=False).returncode == 0
    assert run(*PIPELINE, "--dry", folder=folder).returncode == 0
    assert "an experiment needs git" in run(*PIPELINE, "--set", "seed=7", folder=folder).stderr
    shutil.rmtree(folder / ".dvc")
    done = run(*PIPELINE, "--dry", folder=folder)
    assert done.returncode == 1
    assert "is not a DVC repository: run `git init` and `dvc init`, or `dvc init --no-scm`" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_family_is_told_by_every_command_that_runs_our_code(workspace, run_flow):
    edit_params(workspace, models__iris_mlp__family="mpl")
    for words in (["ingest", "line"], ["train", "iris_mlp"], ["pipeline", "--dry"], ["ui", "--port", "1"], ["demo"]):
        done = run_flow(*words)
        assert done.returncode == 1
        assert "models.iris_mlp.family: unknown family 'mpl'. Did you mean 'mlp'?" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_figures_and_experiments_fit_a_screen(run, trained):
    made = run(*PIPELINE, ONE, "--set", "models.linear_neuron.fit.epochs=3", "--set", "seed=7")
    assert made.returncode == 0, made.stderr
    shown = run(sys.executable, "-m", "flows.metrics")
    assert shown.returncode == 0, shown.stderr
    assert max(map(len, shown.stdout.splitlines())) <= 100
    text = " ".join(shown.stdout.replace("│", " ").split())
    measured = json.loads((trained / "artifacts/linear_neuron/metrics.json").read_text())["metrics"]["test"]
    assert f"linear_neuron sample 1 loss {measured['loss']:.4f}" in text
    [name] = run(*DVC, "exp", "list", "--name-only").stdout.split()
    assert name in text
    assert "models.linear_neuron.fit.epochs=3" in text
    assert "seed=7" in text
    assert f"linear_neuron loss {measured['loss']:.4f} →" in text
    assert "hardware" not in text
    run(*DVC, "exp", "remove", name)


def test_figures_of_a_workspace_without_models_say_what_to_run(run_flow):
    done = run_flow("metrics")
    assert done.returncode == 1
    assert done.stderr == "error: artifacts: there is no model yet. Run `make pipeline` or `dvc repro` first.\n"
