"""Where the stages' commands run: in processes of this machine, or on the workers of a Dask cluster."""
