"""The example of CONTRIBUTING.md, followed to the letter."""

import json
import re

from tests.support.workspaces import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()


def block(language: str) -> str:
    """Return the code block of `language` under the example's heading."""
    example = PAGE[PAGE.index("### Example: a model of a new family") :]
    return re.search(rf"```{language}\n(.*?)```", example, re.DOTALL).group(1)


def test_a_new_model_takes_one_file_and_one_entry(prepared, run_flow):
    path = re.search(r"`(models/\w+\.py)`:\n\n```python", PAGE).group(1)
    (prepared / path).write_text(block("python"))
    params = prepared / "params.yaml"
    params.write_text(params.read_text().replace("\nmodels:\n", f"\nmodels:\n{block('yaml')}", 1))
    done = run_flow("train", "housing_residual")
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads((prepared / "artifacts/housing_residual/metrics.json").read_text())
    assert measured["parameters"]["total"] == (8 + 1) * 32 + 2 * (32 + 1) * 32 + 33
    assert measured["metrics"]["train"]["rmse"] < 0.5  # of values that spread by 0.86
    unknown = run_flow("train", "housing_residul")
    assert "Did you mean 'housing_residual'?" in unknown.stderr
    assert all(name in unknown.stderr for name in ("linear_neuron", "multi_input_cnn", "housing_residual"))
