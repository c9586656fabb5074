"""dvc.yaml names the code that each stage imports, and the parameters that it uses."""

import tomllib

import grimp
import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from orchestration.dvc.graph import target_names
from runtime.packages import PACKAGES
from tests.support.workspaces import ROOT

CODE = tuple(name for name in PACKAGES if name != "orchestration")  # how a stage is started changes no result
GRAPH = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
# Found by name at run time: the file of the data set, that of the family, and the page's template.
BY_NAME = {
    "ingest": {"datasets/${key}.py"},
    "prepare": {"datasets/${key}.py"},
    "train": {
        "datasets/${item.dataset}.py",
        "models/${item.family}.py",
        "tasks/publishing/model_card.md.jinja",
    },
    "lecture_recipe": {"datasets/${item.dataset}.py", "models/${item.family}.py"},
    "search": {"datasets/${item.dataset}.py", "models/${item.family}.py", "flows/trial.py"},
    "baselines": {f"datasets/{name}.py" for name in YAML(typ="safe").load(ROOT / "params.yaml")["datasets"]},
    "report": {f"datasets/{name}.py" for name in YAML(typ="safe").load(ROOT / "params.yaml")["datasets"]}
    | {str(file.relative_to(ROOT)) for file in (ROOT / "tasks/report/templates").iterdir()},
}


def imported_code(flow: str) -> set[str]:
    """Return the files that `flows.NAME` imports, directly or not, save those of its command line."""
    graph = grimp.build_graph(*CODE, "orchestration")
    started = [file.removesuffix(".py").replace("/", ".") for file in BY_NAME[flow] if file.startswith("flows/")]
    for module in (f"flows.{flow}", *started):
        graph.remove_import(importer=module, imported="orchestration.command_line")
    modules = {f"flows.{flow}", *graph.find_upstream_modules(f"flows.{flow}")}
    for module in started:
        modules |= {module, *graph.find_upstream_modules(module)}
    for pattern in BY_NAME[flow]:  # what the files found by name import in turn
        package = pattern.split("/")[0]
        for module in graph.find_children(package) if pattern.endswith("}.py") else ():
            modules |= {used for used in graph.find_upstream_modules(module) if not used.startswith(f"{package}.")}
    return {path_of(module) for module in modules if not module.startswith("orchestration.")}


def path_of(module: str) -> str:
    path = module.replace(".", "/")
    return f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py"


def code_dependencies(stage: str) -> list[str]:
    deps = GRAPH[stage].get("do", GRAPH[stage])["deps"]
    return [dep for dep in deps if dep.split("/")[0] in CODE]


# Batches are data that were accepted once, whatever the code is now.
COMPUTED = [stage for stage in GRAPH if stage != "receive"]


@pytest.mark.parametrize("stage", COMPUTED)
def test_a_stage_depends_on_every_file_of_code_that_it_imports(stage):
    deps = code_dependencies(stage)
    missing = {file for file in imported_code(stage) | BY_NAME[stage] if not any(lies_in(file, dep) for dep in deps)}
    assert not missing


@pytest.mark.parametrize("stage", COMPUTED)
def test_a_stage_depends_on_no_code_that_it_does_not_import(stage):
    used = imported_code(stage) | BY_NAME[stage]
    unused = {dep for dep in code_dependencies(stage) if not any(lies_in(file, dep) for file in used)}
    assert not unused


def lies_in(file: str, dependency: str) -> bool:
    return file == dependency or file.startswith(f"{dependency}/")


@pytest.mark.parametrize("file", ["split.py", "prepare.py", "ingest.py"])
def test_how_rows_are_split_is_no_dependency_of_a_training(file):
    stages = {stage for stage in GRAPH for dep in code_dependencies(stage) if lies_in(f"tasks/preparation/{file}", dep)}
    assert stages == {"ingest", "prepare"}


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
    assert list(GRAPH) == ["receive", "ingest", "prepare", "train", "lecture_recipe", "search", "baselines", "report"]
    assert GRAPH["train"]["do"]["params"] == ["hardware", "seed", "models.${key}"]
    assert "orchestration/search.py" in GRAPH["search"]["do"]["deps"]  # the order of its trials is a part of the result
    assert GRAPH["prepare"]["do"]["params"] == ["datasets.${key}"]
    assert GRAPH["ingest"]["do"]["params"] == ["data.source"]
    used = ["baselines", "datasets", "leave_out", "lecture_recipes", "models", "notes", "search", "search_spaces"]
    assert GRAPH["report"]["params"] == used


def test_no_stage_depends_on_the_gates_or_on_what_is_kept():
    named = {key for stage in GRAPH.values() for key in stage.get("do", stage).get("params", ())}
    assert not {key for key in named if key.split(".")[0] in ("gates", "retention")}
    whole = {dep for stage in GRAPH.values() for dep in stage.get("do", stage)["deps"]}
    assert "params.yaml" not in whole


def test_every_tool_knows_every_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    known = {*PACKAGES, "benchmarks"}
    assert set(settings["mypy"]["files"]) == known
    assert set(settings["importlinter"]["root_packages"]) == known
    layers = settings["importlinter"]["contracts"][0]["layers"]
    assert {name for layer in layers for name in layer.split(" | ")} == known
