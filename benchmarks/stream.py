"""Training on many copies of Fashion-MNIST, from disk and from memory.

python -m benchmarks.stream write FOLDER COPIES      the train and valid rows COPIES times, as `prepare` writes them
python -m benchmarks.stream fit MODEL MEMORY EPOCHS  train in the current workspace, print the results as JSON
"""

import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from config import paths
from config.params import load_params
from tasks.data.contracts import read_contract
from tasks.data.files import read_table
from tasks.data.schema import GROUP_ROWS, PreparedSchema, write_schema


def write(folder: Path, copies: int) -> int:
    """Write `copies` of the train and valid rows to train.parquet, row group by row group; return how many rows.

    The number of rows in `folder`/schema.json is changed accordingly.
    """
    parts = [read_table(paths.prepared_table("fashion_mnist", split), "") for split in ("train", "valid")]
    table = pa.concat_tables(parts).combine_chunks()
    doubled = pa.concat_tables([table, table.slice(0, GROUP_ROWS)]).combine_chunks()  # for row groups across the end
    rows = copies * table.num_rows
    with pq.ParquetWriter(folder / "train.parquet", table.schema, compression="zstd") as writer:
        for first in range(0, rows, GROUP_ROWS):
            group = doubled.slice(first % table.num_rows, min(GROUP_ROWS, rows - first))
            writer.write_table(group, row_group_size=GROUP_ROWS)
    schema = read_contract(folder / "schema.json", PreparedSchema, "prepare@fashion_mnist")
    write_schema(schema.model_copy(update={"rows": schema.rows.model_copy(update={"train": rows})}), folder)
    return rows


def measure(name: str, memory: int, epochs: int) -> dict[str, Any]:
    """Fit a model.

    Args:
        name: of the model.
        memory: bytes; larger splits are streamed.
        epochs: of the fit.
    """
    from datasets import get_dataset
    from tasks.data.streaming import Stream, open_split
    from tasks.publishing.run_record import peak_memory_bytes
    from tasks.training.fit import fit
    from tasks.training.hardware import use_device

    params = load_params()
    recipe = params.model(name)
    use_device(params.hardware.device, params.hardware.training_threads(get_dataset(recipe.dataset).has_pictures))
    recipe = recipe.model_copy(update={"fit": recipe.fit.model_copy(update={"epochs": epochs})})
    train, valid = (open_split(recipe, split, memory) for split in ("train", "valid"))
    began = time.perf_counter()
    fitted = fit(name, recipe, params.seed, params.hardware, train, valid)
    ends = [end - began for end in fitted.epoch_ends]
    return {
        "rows": train.rows,
        "streamed": isinstance(train, Stream),
        "first_epoch_seconds": ends[0],
        "epoch_seconds": [later - earlier for earlier, later in pairwise(ends)],
        "valid_accuracy": fitted.history["val_accuracy"][-1],
        "peak_memory_bytes": peak_memory_bytes(),
    }


if __name__ == "__main__":
    if sys.argv[1] == "write":
        print(write(Path(sys.argv[2]), int(sys.argv[3])))
    else:
        print(json.dumps(measure(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
