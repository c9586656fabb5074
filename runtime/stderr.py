"""Hide what TensorFlow's C++ code prints while it is imported."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hide everything that the block writes to standard error, also from C code; show it if the block raises.

    TensorFlow 2.21 prints half a dozen lines before its log level, TF_CPP_MIN_LOG_LEVEL, applies.
    """
    sys.stderr.flush()
    try:
        held = tempfile.TemporaryFile()  # noqa: SIM115
    except OSError:  # without a temporary folder, or on a full disk, nothing is hidden
        yield
        return
    visible = os.dup(2)
    os.dup2(held.fileno(), 2)
    try:
        yield
    except BaseException:
        sys.stderr.flush()
        held.seek(0)
        os.write(visible, held.read())
        raise
    finally:
        os.dup2(visible, 2)
        os.close(visible)
        held.close()
