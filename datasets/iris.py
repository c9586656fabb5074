"""Iris: 150 flowers of three species, four lengths each.

R. A. Fisher, "The use of multiple measurements in taxonomic problems", Annals of Eugenics 7, 1936.
scikit-learn carries its own copy, which differs from the UCI file in two rows; it needs no network.

| column | type | unit | range |
|---|---|---|---|
| sepal_length, sepal_width, petal_length, petal_width | float64 | cm | 0.1 to 7.9 |
| species | int64 | | 0 setosa, 1 versicolor, 2 virginica (50 rows each) |
"""

import numpy as np
import pyarrow as pa

from datasets.dataset import Dataset

FEATURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
SCHEMA = pa.schema([(name, pa.float64()) for name in FEATURES] + [("species", pa.int64())])


def fetch() -> pa.Table:
    from sklearn.datasets import load_iris

    iris = load_iris()
    return pa.table([*iris.data.T.copy(), iris.target.astype(np.int64)], schema=SCHEMA)


def generate() -> pa.Table:
    """Return 150 artificial flowers: a normal distribution for each species, setosa far from the other two."""
    rng = np.random.default_rng(0)
    centers = np.array([[5.0, 3.5, 1.5, 0.3], [6.0, 2.8, 4.3, 1.3], [6.6, 3.0, 5.8, 2.1]])
    species = np.repeat(np.arange(3), 50)
    spread = np.array([0.35, 0.3, 0.15, 0.1])
    lengths = np.round(centers[species] + rng.normal(size=(150, 4)) * spread, 1).clip(0.1)
    return pa.table([*lengths.T.copy(), species], schema=SCHEMA)


DATASET = Dataset(
    name="iris",
    title="Iris",
    origin="R. A. Fisher (1936), the copy bundled with scikit-learn (sklearn.datasets.load_iris)",
    version="scikit-learn's copy",
    licence="CC BY 4.0 (UCI Machine Learning Repository)",
    citation="Fisher, The use of multiple measurements in taxonomic problems, Annals of Eugenics 7 (1936)",
    schema=SCHEMA,
    features=FEATURES,
    target="species",
    class_names=("setosa", "versicolor", "virginica"),
    target_unit=None,
    sha256="123a86dccd9bcc0170146f6867b32c5f93133f63bd64c0594039c74a6d51ce3e",
    cache=None,
    fetch=fetch,
    generate=generate,
    limits=(
        "150 flowers, measured by hand in the 1930s; 38 of them for testing, so that one flower more or less is "
        "2.6 points of accuracy. Not for identifying plants."
    ),
)
