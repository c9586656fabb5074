"""Imported once by the server that stages are forked from: what takes long to import, and next to nothing of ours.

No TensorFlow operation may run here, for the threads that it starts do not survive a fork.
"""

import functools
import gc
import os
import ssl

from runtime.stderr import quiet_stderr

# A signal for the flow's group, such as Prefect's worker sends to cancel a run, is for the flow: with this server the
# stages would be killed, before they have put their outputs back. It ends when the flow does.
os.setsid()

with quiet_stderr():
    import altair  # noqa: F401
    import certifi
    import filelock  # noqa: F401
    import jinja2  # noqa: F401
    import keras  # noqa: F401
    import networkx  # noqa: F401
    import pandas  # noqa: F401
    import prefect.flow_engine  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import ruamel.yaml  # noqa: F401
    import scipy.stats  # noqa: F401
    import sklearn.neural_network  # noqa: F401
    import tensorflow  # noqa: F401

# A client of Prefect's makes a context for TLS, with every authority that there is, before it knows whether its server
# speaks TLS: each stage has several, which share what was made here.
ssl.create_default_context = functools.cache(ssl.create_default_context)  # type: ignore[assignment]
ssl.create_default_context(cafile=certifi.where())

gc.collect()
gc.freeze()  # what is here stays, so that a fork does not copy it by collecting garbage
