"""What is measured of each picture, so that pictures can be checked and compared like numbers."""

import numpy as np

DARK = 0.1  # a pixel is dark below this share of white
CHUNK = 4096  # pictures at a time, as float32


def summarise(pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Return numbers that describe each picture.

    pictures: [rows, height, width] or [rows, height, width, channels], of any numeric type; white is the largest
    integer of the type, or 1 for floats.

    Returns:
        float64 [rows] each: `mean` and `contrast` (standard deviation) of the pixels, the `brightest` pixel, and the
        share of `dark` pixels.
    """
    white = white_of(pictures.dtype)
    parts = []
    for start in range(0, len(pictures), CHUNK):
        flat = pictures[start : start + CHUNK].reshape(len(pictures[start : start + CHUNK]), -1).astype(np.float32)
        dark = (flat < DARK * white).mean(axis=1)
        parts.append(np.stack([flat.mean(axis=1), flat.std(axis=1), flat.max(axis=1), dark]).astype(np.float64))
    found = np.concatenate(parts, axis=1) if parts else np.empty((4, 0))
    return dict(zip(("mean", "contrast", "brightest", "dark"), found, strict=True))


def white_of(dtype: np.dtype) -> float:
    """Return the value of a white pixel: the largest integer of the type, or 1 for floats."""
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0
