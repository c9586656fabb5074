"""run.json and network/graph.json of a model. Without Keras, so that the report can read them."""

from pathlib import Path
from typing import Annotated, Any

import networkx
from pydantic import Field, NonNegativeInt

from config import paths
from tasks.data.contracts import OpenContract, Seconds, fault, read_contract, shorten, write_contract

RUN_FILE, GRAPH_FILE = "run.json", "network/graph.json"


class RunSeconds(OpenContract):
    """The seconds of each step of a training, and of all."""

    read: Seconds
    fit: Seconds
    export: Seconds
    evaluate: Seconds
    total: Seconds


class Versions(OpenContract):
    """The versions of Python and of the packages, by name."""

    python: str
    keras: str


class RunRecord(OpenContract):
    """artifacts/M/run.json: what a rerun does not reproduce.

    began: UTC, ISO 8601. recipe: of params.yaml. files: the SHA-256 of each file of the training, by path
    (`tasks.publishing.checksums`).
    """

    began: str
    seconds: RunSeconds
    peak_memory_bytes: NonNegativeInt
    device: str
    precision: str
    precision_reason: str = ""
    execution: str
    cores: int | None
    platform: str
    backend: str
    versions: Versions
    git_commit: str | None
    recipe: dict[str, Any]
    files: dict[str, str]


class Layer(OpenContract):
    """A layer of a network. shape: of a row of its output."""

    name: str
    type: str
    activation: str | None
    shape: list[int | None]
    parameters: NonNegativeInt
    trainable: NonNegativeInt


class Graph(OpenContract):
    """artifacts/M/network/graph.json: the layers of a network, in the order of the calculation.

    links: pairs of names, a layer and one that reads its output. index: the raw row whose feature maps are kept.
    """

    layers: Annotated[list[Layer], Field(min_length=1)]
    links: list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    index: NonNegativeInt


def write_run(run: RunRecord, folder: Path) -> None:
    write_contract(folder / RUN_FILE, run)


def read_run(name: str) -> RunRecord:
    return read_contract(paths.artifacts_folder(name) / RUN_FILE, RunRecord, f"train@{name}")


def write_graph(graph: Graph, folder: Path) -> None:
    write_contract(folder / GRAPH_FILE, graph)


def read_graph(path: Path, stage: str) -> Graph:
    """Read a graph; raises UserError where a link names no layer, or the links form a cycle."""
    graph = read_contract(path, Graph, stage)
    names = {layer.name for layer in graph.layers}
    for number, link in enumerate(graph.links):
        if not names.issuperset(link):
            raise fault(path, stage, f"links.{number}", f"{shorten(link)} names a layer that is not there")
    if not networkx.is_directed_acyclic_graph(networkx.DiGraph(graph.links)):
        raise fault(path, stage, "links", "form a cycle")
    return graph
