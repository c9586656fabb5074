"""The flows: one file each, runnable as `python -m flows.NAME`; the order of tasks and nothing else."""

import os

SERVER = "HEAVISIDE_SERVER"  # set for the processes of a Prefect server of ours (flows/server.py)

# In all others, Prefect's variables for a server are for one that is not ours. Prefect reads them when it is imported,
# and ends with a traceback where it does not know a value.
if SERVER not in os.environ:
    for name in [*os.environ]:
        if name.upper().startswith("PREFECT_SERVER_"):
            del os.environ[name]
