"""Modules that the fork server preloads for every stage: slow third-party imports, and of our code `runtime.stderr`.

What only trainings need is in preload_training.py.
"""

import gc
import os

from runtime.stderr import quiet_stderr

# Prefect's worker cancels a run by a signal to the flow's process group. In a session of its own this server does not
# get that signal: it would take the stages with it before they have restored their outputs. It ends with the flow.
os.setsid()

with quiet_stderr():
    import filelock  # noqa: F401
    import networkx  # noqa: F401
    import prefect.flow_engine  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import ruamel.yaml  # noqa: F401

gc.collect()
gc.freeze()  # a garbage collection in a fork would otherwise copy these objects' memory pages
