"""Formatting: how numbers and durations are written on the pages."""

import json
from typing import Any

from markupsafe import Markup, escape

# The mark of each verdict; the pages add the word for screen readers.
MARKS = {"better": "✓", "worse": "✗", "same": "≈"}


def number(value: float) -> str:
    """Format a metric with four decimals, or two digits if it is smaller; a count with separators."""
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
    """Return a number for the page that keeps its exact value and its place in a JSON file.

    Args:
        value: the number; None is shown as a dash.
        path: the file that holds it, if it was not calculated for the page.
        keys: the keys that lead to it, written as a JSON pointer (RFC 6901).

    Returns:
        A `<data>` element.
    """
    if value is None:
        return Markup("–")
    pointer = "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)
    source = Markup(' data-source="{}#{}"').format(path, pointer) if path else ""
    return Markup('<data value="{}"{}>{}</data>').format(json.dumps(value), source, escape(number(value)))
