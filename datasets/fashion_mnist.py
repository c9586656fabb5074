"""Fashion-MNIST: 70,000 gray images of garments in ten classes.

H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms",
arXiv:1708.07747, 2017. Fetched by `tfds.load("fashion_mnist")`; the rows keep its order.

| column | type | range |
|---|---|---|
| image | uint8 [28, 28] | 0 (background) to 255 |
| label | int64 | 0 to 9, see CLASS_NAMES; 6,000 train and 1,000 test rows each |
| split | string | the official "train" (60,000 rows) or "test" (10,000 rows) |
"""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
import pyarrow as pa

from datasets.dataset import SPLIT_COLUMN, Dataset, image_type, to_column, unreachable
from runtime.errors import UserError
from runtime.stderr import quiet_stderr

VERSION = "3.0.1"
CACHE = "TFDS_DATA_DIR"
SMALLEST_FILE = "t10k-labels-idx1-ubyte.gz"  # of those that the loader downloads
CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
SCHEMA = pa.schema([("image", image_type(np.uint8, (28, 28))), ("label", pa.int64()), (SPLIT_COLUMN, pa.string())])
SAMPLE_ROWS = {"train": 2_400, "test": 400}


def fetch() -> pa.Table:
    builder = open_builder()
    import tensorflow_datasets as tfds

    try:
        splits = tfds.load(f"fashion_mnist:{VERSION}", split=["train", "test"], batch_size=-1)
    except Exception as error:
        if not builder.is_prepared():
            folder = os.environ.get(CACHE) or Path(builder.data_dir).parents[1]
            raise unreachable("fashion_mnist", builder.URL, CACHE, folder, error) from error
        raise damaged(builder.data_dir, error) from error
    train, test = tfds.as_numpy(splits)
    return to_table(
        np.concatenate([train["image"], test["image"]])[..., 0],  # [rows, 28, 28, 1] -> [rows, 28, 28]
        np.concatenate([train["label"], test["label"]]),
        np.repeat(["train", "test"], [len(train["label"]), len(test["label"])]),
    )


def open_builder() -> Any:
    """Return the loader, a `tfds.core.DatasetBuilder`; raises UserError where its cache is damaged."""
    with quiet_stderr():
        import tensorflow as tf
        import tensorflow_datasets as tfds

        tf.config.list_physical_devices()  # writes to standard error, too

    try:
        return tfds.builder(f"fashion_mnist:{VERSION}")
    except Exception as error:  # a damaged description in the cache can raise anything
        folder = os.environ.get(CACHE) or "~/tensorflow_datasets"
        raise damaged(f"{folder}/fashion_mnist/{VERSION}", error) from error


def address() -> str:
    return urljoin(open_builder().URL, SMALLEST_FILE)


def cache_folder() -> Path:
    return Path(open_builder().data_dir)


def to_table(image: np.ndarray, label: np.ndarray, split: np.ndarray) -> pa.Table:
    """Return the raw rows.

    Args:
        image: uint8 [rows, 28, 28].
        label: number of the class, [rows].
        split: "train" or "test", [rows].
    """
    columns = [to_column(image), pa.array(label.astype(np.int64)), pa.array(split.tolist())]
    return pa.table(columns, schema=SCHEMA)


def damaged(folder: str, error: Exception) -> UserError:
    first_line = next(iter(str(error).splitlines()), "")
    return UserError(
        f"fashion_mnist: the cache {folder} is damaged ({type(error).__name__}: {first_line}). "
        "Delete that folder and run again; it is then fetched anew."
    )


def generate() -> pa.Table:
    """Return silhouettes of garments: polygons that are moved, scaled, shaded and made noisy."""
    rng = np.random.default_rng(0)
    rows = sum(SAMPLE_ROWS.values())
    label = rng.permutation(np.arange(rows) % len(CLASS_NAMES))
    image = np.stack([draw(OUTLINES[CLASS_NAMES[kind]], rng) for kind in label])
    return to_table(image, label, np.repeat(list(SAMPLE_ROWS), list(SAMPLE_ROWS.values())))


# Corners "x,y" of the polygons of each class, in hundredths of the image, y downwards.
OUTLINES = {
    "T-shirt/top": [
        "5,20 35,8 65,8 95,20 88,42 72,34 72,95 28,95 28,34 12,42",
    ],
    "Trouser": [
        "32,3 68,3 72,97 55,97 50,30 45,97 28,97",
    ],
    "Pullover": [
        "30,10 70,10 90,25 98,92 82,92 75,42 75,95 25,95 25,42 18,92 2,92 10,25",
    ],
    "Dress": [
        "38,2 62,2 60,35 78,98 22,98 40,35",
    ],
    "Coat": [
        "30,3 47,3 47,97 22,97 24,40 16,85 2,85 12,15",
        "53,3 70,3 88,15 98,85 84,85 76,40 78,97 53,97",
    ],
    "Sandal": [
        "2,78 98,72 98,82 2,88",
        "10,78 30,50 38,50 20,78",
        "60,74 75,35 83,35 72,74",
    ],
    "Shirt": [
        "30,5 44,5 50,20 56,5 70,5 95,22 90,62 76,60 74,36 74,95 26,95 26,36 24,60 10,62 5,22",
    ],
    "Sneaker": [
        "2,50 15,48 35,60 55,50 70,62 98,72 98,85 2,85",
    ],
    "Bag": [
        "8,40 92,40 98,92 2,92",
        "30,40 34,12 66,12 70,40 62,40 60,20 40,20 38,40",
    ],
    "Ankle boot": [
        "15,8 55,8 55,50 97,70 97,92 12,92",
    ],
}


def draw(polygons: list[str], rng: np.random.Generator) -> np.ndarray:
    """Draw one garment: uint8 [28, 28]."""
    from PIL import Image, ImageDraw

    width, height = 26 * rng.uniform(0.8, 1.0, 2)
    left, top = rng.uniform(0, 28 - width), rng.uniform(0, 28 - height)
    shade = int(rng.uniform(110, 250))
    picture = Image.new("L", (28, 28))
    pen = ImageDraw.Draw(picture)
    for polygon in polygons:
        corners = np.array([corner.split(",") for corner in polygon.split()], dtype=float) / 100
        jittered = corners + rng.normal(0, 0.015, corners.shape)
        pen.polygon([(left + x * width, top + y * height) for x, y in jittered], fill=shade)
    pixels = np.asarray(picture, dtype=np.float64)
    noisy = pixels * rng.uniform(0.8, 1.0, pixels.shape) + rng.normal(0, 4, pixels.shape) * (pixels > 0)
    return noisy.clip(0, 255).astype(np.uint8)


DATASET = Dataset(
    name="fashion_mnist",
    title="Fashion-MNIST",
    origin="Zalando Research (2017), through tfds.load('fashion_mnist')",
    version=VERSION,
    licence="MIT",
    citation="Xiao, Rasul and Vollgraf, Fashion-MNIST, arXiv:1708.07747 (2017)",
    schema=SCHEMA,
    features=("image",),
    target="label",
    class_names=CLASS_NAMES,
    target_unit=None,
    sha256="47aa0d346ca5bfb3c7ce4223990d9bc6309556adc0109f4510af0b13e848f90b",
    cache=CACHE,
    fetch=fetch,
    address=address,
    cached=cache_folder,
    generate=generate,
    limits=(
        "Product pictures of one shop, cut out, centered and shrunk to 28 by 28 gray pixels: they show no worn "
        "clothes, color or fabric. The test pictures are of the same shop, so metrics are higher than elsewhere."
    ),
)
