"""Keep what TensorFlow's C++ code prints while it is imported away from the terminal."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back everything written to standard error in the block, by C code too; show it if the block raises.

    TensorFlow 2.21 prints half a dozen lines before its own log level applies, TF_CPP_MIN_LOG_LEVEL or not.
    """
    sys.stderr.flush()
    try:
        held = tempfile.TemporaryFile()  # noqa: SIM115
    except OSError:  # no folder for it, or a full disk: what is printed is seen
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
