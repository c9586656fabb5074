"""The packages of this project, from the lowest layer to the highest but one: the code that a workspace needs.

pyproject.toml lists them, with `benchmarks`, for import-linter and mypy (tests/unit/test_graph.py compares).
"""

PACKAGES = ("runtime", "config", "datasets", "models", "tasks", "orchestration", "serving", "flows")
