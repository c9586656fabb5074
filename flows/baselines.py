"""Fit every baseline of params.yaml: data/raw, data/prepared -> artifacts/baselines."""

from prefect import flow

from config import paths
from config.params import load_params
from orchestration.command_line import run


@flow(name="baselines")
def baselines() -> None:
    """Fit the models of scikit-learn, dummies included, with which networks are compared."""
    from runtime.atomic_outputs import atomic_folder
    from tasks.reference.baselines import baseline_task, write_baselines_task

    measured, seconds = {}, {}
    with atomic_folder(paths.BASELINES) as folder:
        for name, params in load_params().baselines.items():
            measured[name], seconds[name] = baseline_task(name, params)
        write_baselines_task(measured, seconds, folder)


if __name__ == "__main__":
    run(baselines)
