"""The flows, one file each, which `python -m flows.NAME` runs, and the deployments that prefect.yaml names."""

from orchestration.environment import prepare_environment

# Before any flow imports Prefect and TensorFlow, which read the environment at import.
prepare_environment()
