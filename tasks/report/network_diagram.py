"""Network diagram: the layers of a network as boxes in levels, joined by lines."""

from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

import networkx

from tasks.publishing.records import Graph, Layer

BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y = 168, 44, 24, 26


@dataclass(frozen=True)
class Box:
    """A layer, with the position of its upper left corner."""

    x: float
    y: float
    title: str
    text: str


@dataclass(frozen=True)
class Drawing:
    width: float
    height: float
    boxes: list[Box]
    lines: list[str]  # SVG paths


def draw(graph: Graph) -> Drawing:
    """Lay out the layers of a network (`graph.json`) so that each is below all layers that it reads.

    A line over several levels gets a position in each of them, so that it passes between the boxes, not behind them.
    """
    layers = {layer.name: layer for layer in graph.layers}
    network = networkx.DiGraph()
    network.add_nodes_from(layers)
    network.add_edges_from(graph.links)
    generations = networkx.topological_generations(network)
    level = {name: depth for depth, names in enumerate(generations) for name in names}
    chains = [[source, *passed(source, reader, level), reader] for source, reader in graph.links]
    places: dict[Any, int] = dict(level)
    above: dict[Any, list[Any]] = {}
    for chain in chains:
        for upper, lower in pairwise(chain):
            places.setdefault(lower, places[upper] + 1)
            above.setdefault(lower, []).append(upper)
    rows: list[list[Any]] = [[] for _ in range(1 + max(places.values()))]
    for node, depth in places.items():
        rows[depth].append(node)
    widest = max(map(len, rows))
    width = widest * BOX_WIDTH + (widest - 1) * GAP_X
    x: dict[Any, float] = {}
    for row in rows:
        row.sort(key=lambda node: fmean(x[upper] for upper in above[node]) if node in above else 0)
        start = (width - len(row) * BOX_WIDTH - (len(row) - 1) * GAP_X) / 2
        for number, node in enumerate(row):
            x[node] = start + number * (BOX_WIDTH + GAP_X)
    boxes = [Box(x[name], top(level[name]), name, describe(layer)) for name, layer in layers.items()]
    lines = [line([(x[node] + BOX_WIDTH / 2, places[node]) for node in chain]) for chain in chains]
    return Drawing(width, top(len(rows)) - GAP_Y, boxes, lines)


def passed(source: str, reader: str, level: dict[str, int]) -> list[tuple[str, str, int]]:
    """Return a position for a line in each of the levels between two layers."""
    return [(source, reader, depth) for depth in range(level[source] + 1, level[reader])]


def top(level: int) -> float:
    return level * (BOX_HEIGHT + GAP_Y)


def line(points: list[tuple[float, int]]) -> str:
    """Return the SVG path of a line through a position in each level, with smooth turns between levels."""
    (x, depth), *rest = points
    path = f"M{x:g} {top(depth) + BOX_HEIGHT:g}"
    for number, (next_x, next_depth) in enumerate(rest):
        arrive = top(next_depth)
        middle = arrive - GAP_Y / 2
        path += f"C{x:g} {middle:g} {next_x:g} {middle:g} {next_x:g} {arrive:g}"
        if number < len(rest) - 1:
            path += f"V{arrive + BOX_HEIGHT:g}"
        x = next_x
    return path


def describe(layer: Layer) -> str:
    shape = " × ".join(str(size or "?") for size in layer.shape)
    kind = "input" if layer.type == "InputLayer" else layer.type
    return f"{kind} {shape}" + (f", {layer.activation}" if layer.activation else "")
