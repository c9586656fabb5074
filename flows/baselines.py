"""Fit every baseline of params.yaml: data/raw, data/prepared -> artifacts/baselines."""

from prefect import flow

from config import paths
from config.params import load_params
from orchestration.command_line import run


@flow(name="baselines")
def baselines() -> None:
    """Fit the models of scikit-learn, dummies included, with which networks are compared."""
    from runtime.atomic_outputs import atomic_folder
    from tasks.data.files import write_json
    from tasks.reference.baselines import baseline_task

    measured, seconds = {}, {}
    with atomic_folder(paths.BASELINES) as folder:
        for name, params in load_params().baselines.items():
            measured[name], seconds[name] = baseline_task(name, params)
        write_json(folder / "metrics.json", measured)
        write_json(folder / "run.json", {name: {"fit": round(taken, 3)} for name, taken in seconds.items()})


if __name__ == "__main__":
    run(baselines)
