"""Where a stage's command runs: a process of this machine, or a worker of a Dask cluster."""
