"""The page on convolution by hand: two pictures, step by step through the layers of a convolutional network."""

from pathlib import Path
from typing import Any

import numpy as np

from tasks.report import convolution
from tasks.report.images import to_png

HEIGHT, WIDTH = 140, 240  # of the middle that is shown
SIZE = 7  # of the filters
STRIDE = 2
POOL = 2


def describe_convolution() -> dict[str, Any]:
    """Return what the page shows: for each of scikit-learn's two pictures the steps, each with its outputs."""
    from sklearn.datasets import load_sample_images

    samples = load_sample_images()
    pictures = zip(samples.filenames, samples.images, strict=True)
    vertical, horizontal = (convolution.line_filter(SIZE, upright) for upright in (True, False))
    return {
        "size": SIZE,
        "filters": {"vertical line": enlarged(vertical), "horizontal line": enlarged(horizontal)},
        "pictures": [
            {"name": Path(name).stem, "steps": steps(image, np.stack([vertical, horizontal]))}
            for name, image in pictures
        ],
    }


def steps(image: np.ndarray, kernels: np.ndarray) -> list[dict[str, Any]]:
    """Return the steps for one picture: title, text, shape of the output and what is drawn of it, by caption.

    Args:
        image: uint8 [height, width, 3].
        kernels: float64 [2, size, size], of the vertical and of the horizontal line.
    """
    cropped = convolution.center_crop(image, HEIGHT, WIDTH)
    scaled = convolution.rescale(cropped)
    maps = convolution.convolve(scaled, kernels)
    strided = convolution.convolve(scaled, kernels, STRIDE)
    valid = convolution.convolve(scaled, kernels, padding="valid")
    largest, mean = convolution.pool(maps, POOL), convolution.pool(maps, POOL, np.mean)
    deep, deep_mean = convolution.pool_depth(scaled, 3), convolution.pool_depth(scaled, 3, np.mean)
    averages = convolution.global_average(maps)
    return [
        step("Crop", f"The middle, {HEIGHT} x {WIDTH} pixels.", cropped, {"picture": to_png(cropped)}),
        step("Rescale", f"Bytes become numbers from {scaled.min():.2f} to {scaled.max():.2f}.", scaled, {}),
        step("Convolve", "Each output pixel is the sum of a field times the filter.", maps, drawn(maps)),
        step("Stride", f"Every {STRIDE}nd field, down and across.", strided, drawn(strided)),
        step("Padding", "Without zeros around the picture (“valid”), the edge is lost.", valid, drawn(valid)),
        step("Max-pool", f"The maximum of each field of {POOL} x {POOL}.", largest, drawn(largest)),
        step("Average-pool", f"The mean of each field of {POOL} x {POOL}.", mean, drawn(mean)),
        step(
            "Depth-wise pool",
            "The maximum, or the mean, of the three colors at each place.",
            deep,
            {"maximum": gray(deep[..., 0]), "mean": gray(deep_mean[..., 0])},
        ),
        step(
            "Global average",
            f"One number a map: {averages[0]:.2f} for vertical lines, {averages[1]:.2f} for horizontal ones.",
            averages,
            {},
        ),
    ]


def step(title: str, text: str, output: np.ndarray, shown: dict[str, str]) -> dict[str, Any]:
    return {"title": title, "text": text, "shape": " x ".join(map(str, output.shape)), "shown": shown}


def drawn(maps: np.ndarray) -> dict[str, str]:
    return {"vertical line": gray(maps[..., 0]), "horizontal line": gray(maps[..., 1])}


def gray(values: np.ndarray) -> str:
    """Return numbers as a gray picture, the least black and the greatest white."""
    low, high = values.min(), values.max()
    return to_png(np.round(255 * (values - low) / ((high - low) or 1)).astype(np.uint8))


def enlarged(kernel: np.ndarray) -> str:
    return gray(np.kron(kernel, np.ones((8, 8))))
