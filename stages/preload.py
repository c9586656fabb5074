"""Imported once by the server that stages are forked from: what takes long to import, and next to nothing of ours.

No TensorFlow operation may run here, for the threads that it starts do not survive a fork.
"""

import gc

from config.quiet import quiet_stderr

with quiet_stderr():
    import keras  # noqa: F401
    import pandas  # noqa: F401
    import prefect.flow_engine  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import sklearn.neural_network  # noqa: F401
    import tensorflow  # noqa: F401

gc.collect()
gc.freeze()  # what is here stays, so that a fork does not copy it by collecting garbage
