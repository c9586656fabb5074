"""Figures: what stands for a model, how it compares with the notes, and how numbers are written."""

import json
from typing import Any

from markupsafe import Markup, escape

# The figure that stands for a model, by task; and whether more of it is better.
MAIN_FIGURE = {"regression": ("rmse", False), "binary": ("accuracy", True), "multiclass": ("accuracy", True)}


def verdict(metrics: dict, notes: dict, figure: str, more_is_better: bool) -> dict[str, Any] | None:
    """Compare `figure` with the notes' on test, or on valid where they print no other; None without one."""
    for split in ("test", "valid"):
        if figure in notes.get(split, {}):
            ours, theirs = metrics[split][figure], notes[split][figure]
            gain = ours - theirs if more_is_better else theirs - ours
            return {"split": split, "notes": theirs, "difference": ours - theirs, "reached": gain >= 0}
    return None


def number(value: float) -> str:
    """Format a figure with four decimals, or two digits where it is smaller; a count with separators."""
    if isinstance(value, int):
        return f"{value:,}"
    magnitude = abs(value)
    if magnitude >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4f}" if magnitude >= 0.001 or value == 0 else f"{value:.1e}"


def signed(value: float) -> str:
    return f"{'+' if value >= 0 else '−'}{number(abs(value))}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def sourced(value: float | None, path: Any = None, *keys: Any) -> Markup:
    """Return a figure for the page, which keeps its exact value and the place in a JSON file where it comes from.

    path, keys: the file and the way in it, written as a JSON pointer (RFC 6901).
    """
    if value is None:
        return Markup("–")
    pointer = "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)
    source = Markup(' data-source="{}#{}"').format(path, pointer) if path else ""
    return Markup('<data value="{}"{}>{}</data>').format(json.dumps(value), source, escape(number(value)))
