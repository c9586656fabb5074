"""Another clone gets the champion from an S3 remote."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration import registry
from tests.support.s3 import s3_remote
from tests.support.workspaces import DVC

MODEL = "iris_mlp"
# Runs with nothing but TensorFlow.
PREDICT = """
import json, sys
import tensorflow as tf
answer = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
rows = {name: tf.constant([5.1, 1.5, 0.2]) for name in answer.structured_input_signature[1]}  # cm
print(json.dumps({name: value.numpy().tolist() for name, value in answer(**rows).items()}))
"""


@pytest.fixture
def s3(small, settings) -> Iterator[None]:
    with s3_remote(small, settings):
        subprocess.run(["git", "commit", "--quiet", "--all", "-m", "the remote"], cwd=small, env=settings, check=True)
        yield


def test_another_clone_gets_the_champion_and_predicts_the_same(s3, small, settings, tmp_path, monkeypatch):
    def run(*words: str, folder: Path = small) -> str:
        done = subprocess.run(words, cwd=folder, env=settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    monkeypatch.chdir(small)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    registry.promote(MODEL, registry.register(MODEL, "HEAD", "the first one").version, "the first one")
    run(*DVC, "push", "--all-tags")
    clone = tmp_path / "another machine"
    run("git", "clone", "--quiet", str(small), str(clone))
    run(*DVC, "artifacts", "get", ".", MODEL, "--stage", "champion", "--out", "champion", folder=clone)
    monkeypatch.chdir(clone)
    assert registry.champion(MODEL).version == "v0.0.1"
    registry.export_version(registry.champion(MODEL), Path("exported"))
    answers = [
        json.loads(run(sys.executable, "-I", "-c", PREDICT, str(folder / "saved_model")))
        for folder in (small / "artifacts" / MODEL, clone / "champion", clone / "exported")
    ]
    assert answers[0]
    assert answers == [answers[0]] * 3
    metrics = small / "artifacts" / MODEL / "metrics.json"
    assert (clone / "champion/metrics.json").read_bytes() == metrics.read_bytes()
