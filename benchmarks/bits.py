"""Print a checksum of what each operation of a training computes, to compare the bits of two processors.

    python -m benchmarks.bits

The same numbers go through each operation in graph mode and compiled by XLA, in float32. Where two machines print
other checksums for an operation, trainings that use it end with other weights.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from runtime.stderr import quiet_stderr
from tasks.training.hardware import processor_name

ROWS, UNITS = 4096, 64
SEED = 42


def operations() -> dict[str, Callable[[Any, Any], Any]]:
    """Return functions of x, float32 [ROWS, UNITS] around 0, and y, of 0 and 1 in the same shape."""
    import keras
    import tensorflow as tf

    def gradient(loss: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def compute(x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = loss(y, x)
            return tape.gradient(value, x)

        return compute

    return {
        "x * y + x": lambda x, y: x * y + x,
        "x / (1 + x^2)": lambda x, _: x / (1 + x * x),
        "1 / x": lambda x, _: 1 / (1 + tf.abs(x)),
        "sqrt": lambda x, _: tf.sqrt(tf.abs(x)),
        "rsqrt": lambda x, _: tf.math.rsqrt(1 + tf.abs(x)),
        "exp": lambda x, _: tf.exp(x),
        "log": lambda x, _: tf.math.log(1e-7 + tf.abs(x)),
        "log1p": lambda x, _: tf.math.log1p(tf.abs(x)),
        "tanh": lambda x, _: tf.tanh(x),
        "sigmoid": lambda x, _: tf.sigmoid(x),
        "softmax": lambda x, _: tf.nn.softmax(x),
        "sum": lambda x, _: tf.reduce_sum(x, axis=0),
        "matmul": lambda x, _: tf.matmul(x, x, transpose_a=True),
        "gradient of softmax cross-entropy": gradient(
            lambda y, x: keras.losses.categorical_crossentropy(y, tf.nn.softmax(x))
        ),
        "gradient of binary cross-entropy": gradient(lambda y, x: keras.losses.binary_crossentropy(y, tf.sigmoid(x))),
        "gradient of binary cross-entropy, logits": gradient(
            lambda y, x: keras.losses.binary_crossentropy(y, x, from_logits=True)
        ),
    }


def checksum(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:12]


def main() -> None:
    with quiet_stderr():
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    rng = np.random.default_rng(SEED)
    x = tf.constant(rng.normal(0, 3, size=(ROWS, UNITS)).astype(np.float32))
    y = tf.constant(rng.integers(0, 2, size=(ROWS, UNITS)).astype(np.float32))
    print(processor_name())
    print(f"{'operation':42} {'graph':14} xla")
    for name, operation in operations().items():
        found = [checksum(tf.function(operation, jit_compile=compiled)(x, y).numpy()) for compiled in (False, True)]
        print(f"{name:42} {found[0]:14} {found[1]}")


if __name__ == "__main__":
    main()
