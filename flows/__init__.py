"""The flows: one file each, runnable as `python -m flows.NAME`; the order of tasks and nothing else."""
