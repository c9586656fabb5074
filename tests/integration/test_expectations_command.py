"""`python -m flows.expectations`, as a person uses it."""

import subprocess
import sys

import pytest

from config import paths


def run(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "flows.expectations", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_file_is_written_once_and_an_edited_one_is_kept(prepared):
    path = paths.expectations_file("california_housing")
    done = run("california_housing")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Review it before you commit it" in done.stdout
    path.write_text(edited := path.read_text().replace("least: 10", "least: 100"))
    refused = run("california_housing")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: data/expectations/california_housing.yaml says something else")
    assert "least: 100" in refused.stdout
    assert path.read_text() == edited


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnist", "unknown dataset 'mnist'"),
        ("iris", "data/raw/iris.json not found. Run `dvc repro ingest@iris` first."),
    ],
)
def test_what_cannot_be_inferred_is_told_in_one_message(name, message, workspace):
    refused = run(name)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: {message}")
    assert "Traceback" not in refused.stderr
    assert not paths.EXPECTATIONS.exists()
