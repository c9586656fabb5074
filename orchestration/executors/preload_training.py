"""Modules that the fork server preloads for a run with trainings: those of preload.py, Keras, and what follows it.

No TensorFlow operation may run here: the threads that it starts do not survive a fork.
"""

import gc

import orchestration.executors.preload  # noqa: F401
from runtime.stderr import quiet_stderr

with quiet_stderr():
    import altair  # noqa: F401
    import jinja2  # noqa: F401
    import keras  # noqa: F401
    import pandas  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.neural_network  # noqa: F401
    import tensorflow  # noqa: F401

gc.collect()
gc.freeze()
