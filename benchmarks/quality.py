"""The housing networks against gradient boosting by CatBoost and LightGBM, on the same rows of train, valid and test.

    python -m benchmarks.quality

Both peers stop early by valid, as their users do; ours is what `train` has measured. They get the raw columns alone,
and with the mean prices of the nearest train rows, as the baseline boosting_housing_neighbours does. They are the extra
`peers` of pyproject.toml and not in requirements.lock: `.venv/bin/python -m uv pip install catboost lightgbm`.
"""

import sys
from typing import Any

import numpy as np

from config.params import load_params
from orchestration.command_line import exit_on_user_error
from runtime.errors import UserError
from tasks.data.schema import read_schema
from tasks.evaluation.metrics import regression_metrics
from tasks.evaluation.metrics_files import read_metrics
from tasks.reference.baselines import read_rows

BASELINE = "boosting_housing_neighbours"  # whose columns of neighbours the peers get
OURS = ("housing_mlp_tuned", "housing_neighbours", "housing_neighbours_ensemble")
ROUNDS, PATIENCE, SEED = 3000, 100, 42

Rows = dict[str, tuple[np.ndarray, np.ndarray]]  # features and target by split


def measure() -> dict[str, dict[str, float]]:
    """Return the RMSE on valid and test of each model; raises UserError where a peer is not installed."""
    params = load_params().baselines[BASELINE]
    schema = read_schema(params.dataset)
    plain, near = (
        read_rows(BASELINE, params.model_copy(update={"neighbours": columns}), schema)
        for columns in (None, params.neighbours)
    )
    found = {}
    for name, fit in (("catboost", fit_catboost), ("lightgbm", fit_lightgbm)):
        for rows, columns in ((plain, ""), (near, ", neighbours")):
            print(f"  {name}{columns} ...", flush=True)
            found[name + columns] = score(fit(rows), rows)
    for name in OURS:
        metrics = read_metrics(name).metrics
        found[name] = {split: metrics[split]["rmse"] for split in ("valid", "test")}
    return found


def fit_catboost(rows: Rows) -> Any:
    try:
        from catboost import CatBoostRegressor
    except ImportError:
        raise missing("catboost") from None
    model = CatBoostRegressor(
        iterations=ROUNDS,
        depth=7,
        l2_leaf_reg=5,
        learning_rate=0.05,
        random_seed=SEED,
        verbose=False,
        allow_writing_files=False,
    )
    return model.fit(*rows["train"], eval_set=rows["valid"], early_stopping_rounds=PATIENCE)


def fit_lightgbm(rows: Rows) -> Any:
    try:
        import lightgbm
    except ImportError:
        raise missing("lightgbm") from None
    model = lightgbm.LGBMRegressor(n_estimators=ROUNDS, learning_rate=0.05, random_state=SEED, verbose=-1)
    return model.fit(
        *rows["train"], eval_set=[rows["valid"]], callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)]
    )


def missing(package: str) -> UserError:
    return UserError(f"{package} is not installed: .venv/bin/python -m uv pip install catboost lightgbm")


def score(model: Any, rows: Rows) -> dict[str, float]:
    return {
        split: regression_metrics(rows[split][1], model.predict(rows[split][0]))["rmse"] for split in ("valid", "test")
    }


def show(found: dict[str, dict[str, float]]) -> None:
    for name, measured in found.items():
        print(f"{name:30} RMSE on valid {measured['valid']:.4f}, on test {measured['test']:.4f}")


if __name__ == "__main__":
    with exit_on_user_error():
        show(measure())
    sys.exit(0)
