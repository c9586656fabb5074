"""The flows: one file each, runnable as `python -m flows.NAME`; the order of tasks and nothing else."""

from orchestration.environment import prepare_environment

# Before any flow imports Prefect and TensorFlow, which read the environment then.
prepare_environment()
