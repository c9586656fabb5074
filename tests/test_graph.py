"""dvc.yaml names exactly the code that each stage imports, and the parameters that it uses."""

import grimp
import pytest
from conftest import ROOT
from dvc.repo import Repo
from ruamel.yaml import YAML

from stages.graph import target_names

PACKAGES = ("config", "datasets", "flows", "models", "tasks")
GRAPH = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
# Found by name at run time: the file of the data set, that of the family, and the page's template.
BY_NAME = {
    "ingest": {"datasets/${key}.py"},
    "prepare": {"datasets/${key}.py"},
    "train": {"datasets/${item.dataset}.py", "models/${item.family}.py", "models/layers.py", "tasks/card.md.jinja"},
    "parity": {"datasets/${item.dataset}.py", "models/${item.family}.py", "models/layers.py"},
    "baselines": {f"datasets/{name}.py" for name in YAML(typ="safe").load(ROOT / "params.yaml")["datasets"]},
    "report": {f"datasets/{name}.py" for name in YAML(typ="safe").load(ROOT / "params.yaml")["datasets"]}
    | {str(file.relative_to(ROOT)) for file in (ROOT / "tasks/report/templates").iterdir()},
}


def imported_code(flow: str) -> set[str]:
    """Return the files that `flows.NAME` imports, directly or not, save those of its command line."""
    graph = grimp.build_graph(*PACKAGES)
    graph.remove_import(importer=f"flows.{flow}", imported="flows.command_line")
    modules = {f"flows.{flow}", *graph.find_upstream_modules(f"flows.{flow}")}
    for pattern in BY_NAME[flow]:  # what the files found by name import in turn
        package = pattern.split("/")[0]
        for module in graph.find_children(package) if pattern.endswith("}.py") else ():
            modules |= {used for used in graph.find_upstream_modules(module) if not used.startswith(f"{package}.")}
    return {path_of(module) for module in modules}


def path_of(module: str) -> str:
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py"


@pytest.mark.parametrize("stage", GRAPH)
def test_a_stage_depends_on_every_file_of_code_that_it_imports(stage):
    deps = GRAPH[stage].get("do", GRAPH[stage])["deps"]
    code = {dep for dep in deps if dep.split("/")[0] in PACKAGES}
    assert code == imported_code(stage) | BY_NAME[stage]


@pytest.mark.parametrize("stage", GRAPH)
def test_a_stage_is_the_flow_of_the_same_name(stage):
    command = GRAPH[stage].get("do", GRAPH[stage])["cmd"]
    assert command.split()[:3] == ["python", "-m", f"flows.{stage}"]


def test_a_run_may_be_asked_for_what_dvc_knows():
    with Repo(ROOT) as repo:
        stages = {stage.addressing for stage in repo.index.stages}
    assert {name for name in target_names(ROOT) if name not in GRAPH or name in stages} == stages
    assert set(GRAPH) <= set(target_names(ROOT))


def test_the_stages_are_those_of_the_plan():
    assert list(GRAPH) == ["ingest", "prepare", "train", "parity", "baselines", "report"]
    assert GRAPH["train"]["do"]["params"] == ["hardware", "seed", "models.${key}"]
    assert GRAPH["prepare"]["do"]["params"] == ["datasets.${key}"]
    assert GRAPH["ingest"]["do"]["params"] == ["data.source"]
    assert GRAPH["report"]["params"] == ["baselines", "datasets", "models", "notes", "parity"]
