"""How the stages of dvc.yaml run in parallel: scheduler, resources, executors, workspace lock, experiments, server."""
