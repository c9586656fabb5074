"""Print the device and its peak performance as JSON, to compare trainings with."""

import json
import statistics
import time
from collections.abc import Callable

from config import paths
from runtime.stderr import quiet_stderr

SIZE = 2048


def seconds(run: Callable[[], object], times: int = 5) -> float:
    """Return the median seconds of some runs, after a run that is not timed."""
    run()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def matrix_product_flops(dtype: str) -> float:
    """Return the multiplications and additions per second of a product of two square matrices in TensorFlow."""
    import tensorflow as tf

    one = tf.cast(tf.random.normal([SIZE, SIZE]), dtype)
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(one, one)))
    return 2 * SIZE**3 / seconds(lambda: product().numpy())


def reading_bytes() -> float:
    """Return the bytes per second that one core decodes of Fashion-MNIST's prepared train split."""
    import pyarrow as pa

    from datasets.dataset import to_values
    from tasks.data.files import open_table

    pa.set_cpu_count(1)
    size = 0

    def read() -> None:
        nonlocal size
        size = 0
        with open_table(paths.prepared_table("fashion_mnist", "train"), "prepare@fashion_mnist") as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, use_threads=False)
                size += sum(to_values(table[name]).nbytes for name in table.column_names)

    taken = seconds(read)
    return size / taken


def gpu_name() -> str | None:
    """Return the name of the first GPU that TensorFlow sees, if any."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", gpus[0].name) if gpus else None


def main() -> None:
    with quiet_stderr():
        measured = {
            "gpu": gpu_name(),
            "float32_flops": matrix_product_flops("float32"),
            "bfloat16_flops": matrix_product_flops("bfloat16"),
        }
    print(json.dumps({**measured, "reading_bytes": reading_bytes()}))


if __name__ == "__main__":
    main()
