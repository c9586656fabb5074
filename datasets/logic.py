"""Two truth values, the inputs of a logic gate: the truth table of AND, OR, NAND and XOR.

The first example of networks in the lecture notes: one threshold unit learns AND, OR and NAND, and cannot learn XOR
(M. Minsky and S. Papert, "Perceptrons", 1969). The gates are targets of models/common/features.py, so that each is
learned from the same rows.

| column | type | meaning |
|---|---|---|
| a, b | float64 | 0 (false) or 1 (true) |
| row | int64 | of the truth table: 2 a + b |
| split | string | the four rows are in each of train, valid and test: a truth table has no other rows |
"""

import numpy as np
import pyarrow as pa

from datasets.dataset import SPLIT_COLUMN, Dataset

SCHEMA = pa.schema([("a", pa.float64()), ("b", pa.float64()), ("row", pa.int64()), (SPLIT_COLUMN, pa.string())])
SPLITS = ("train", "valid", "test")


def generate() -> pa.Table:
    row = np.tile(np.arange(4), len(SPLITS))
    split = np.repeat(SPLITS, 4).tolist()
    columns = {"a": (row // 2).astype(np.float64), "b": (row % 2).astype(np.float64), "row": row, SPLIT_COLUMN: split}
    return pa.table(columns, schema=SCHEMA)


DATASET = Dataset(
    name="logic",
    title="Logic",
    origin="the truth table of two values, computed here",
    version="1",
    licence="none needed (a truth table)",
    citation="Minsky and Papert, Perceptrons (1969)",
    schema=SCHEMA,
    features=("a", "b"),
    target="row",
    class_names=("00", "01", "10", "11"),
    target_unit=None,
    sha256="3b56a27ee5f18b24885b73882776d24a3cf12f23fb0d53b95d0a2a7d8f451b77",
    cache=None,
    fetch=generate,
    generate=generate,
    limits="Four rows, which are all that there are: what is learned is tested on the same rows.",
)
