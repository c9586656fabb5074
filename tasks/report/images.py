"""Images: arrays as PNG within the page."""

import base64
import io

import numpy as np

COLUMNS = 8
GAP = 1  # pixels between the tiles of a sheet


def to_png(pixels: np.ndarray) -> str:
    """Return a uint8 image [height, width] or [height, width, 3] as a data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def sheet(tiles: np.ndarray) -> np.ndarray:
    """Lay out images [count, height, width] or [count, height, width, 3] in rows of COLUMNS, with a gap between.

    Values are scaled to uint8 by the greatest magnitude: 0 is black, or the middle gray if some are negative.
    """
    values = tiles.astype(np.float32)
    limit = float(np.abs(values).max()) or 1.0
    unit = values / limit / 2 + 0.5 if values.min() < 0 else values / limit
    shown = np.round(255 * unit).astype(np.uint8)
    count, height, width = shown.shape[:3]
    columns = min(COLUMNS, count)
    lines = -(-count // columns)
    laid = np.full((lines * (height + GAP) - GAP, columns * (width + GAP) - GAP, *shown.shape[3:]), 128, np.uint8)
    for number, tile in enumerate(shown):
        top, left = number // columns * (height + GAP), number % columns * (width + GAP)
        laid[top : top + height, left : left + width] = tile
    return laid


def filter_tiles(kernel: np.ndarray) -> np.ndarray:
    """Turn a kernel [height, width, channels, filters] into tiles: gray for one channel, color for three.

    Of other numbers of channels it is the mean.
    """
    tiles = np.moveaxis(kernel, -1, 0)
    if tiles.shape[-1] == 3:
        return tiles
    return tiles.mean(axis=-1)
