"""The graph that DVC reads from dvc.yaml: the stages, what each needs, and which have changed."""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
from dvc.scm import SCMError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from config import paths
from config.params import parse_values
from orchestration.dvc.lockfile import locked_stages
from orchestration.dvc.patches import patch_dvc
from orchestration.dvc.state import repair_dvc_state
from runtime.errors import UserError, unknown_name

# The groups of dvc.yaml with a stage for each model.
OF_MODELS = ("train", "lecture_recipe", "search")


@dataclass(frozen=True)
class Plan:
    """The stages of a run, in the order in which `dvc repro` would run them.

    needs: for each stage, the stages whose outputs it reads. changed: the stages that differ from dvc.lock.
    """

    order: list[str]
    needs: dict[str, list[str]]
    changed: set[str]

    def ancestors(self, stage: str) -> set[str]:
        """Return all stages that `stage` needs, directly or not."""
        needs = set(self.needs[stage])
        return needs.union(*(self.ancestors(need) for need in needs))

    def without(self, models: Collection[str]) -> "Plan":
        """Return the plan without the stages that train or search one of `models`."""
        left_out = {f"{group}@{model}" for group in OF_MODELS for model in models}
        left = [stage for stage in self.order if stage not in left_out]
        needs = {stage: [need for need in self.needs[stage] if need in left] for stage in left}
        return Plan(left, needs, self.changed & {*left})

    def may_run(self, force: bool) -> list[str]:
        """Return the stages that have changed, or that a changed one may change; with `force`, all."""
        return [stage for stage in self.order if force or ({stage} | self.ancestors(stage)) & self.changed]


def target_names(root: Path) -> list[str]:
    """Return every group and stage that a run can have as a target, read from dvc.yaml and params.yaml without DVC.

    Returns none if one of them cannot be read; the run itself reports that.
    """
    try:
        stages = YAML(typ="safe").load(root / "dvc.yaml")["stages"]
        params = dict(parse_values((root / paths.PARAMS).read_text(encoding="utf-8"), paths.PARAMS))
    except (OSError, YAMLError, TypeError, ValueError, UserError):
        return []
    names = []
    for group, stage in stages.items():
        section = stage.get("foreach", "").strip("${}")
        names += [group, *(f"{group}@{key}" for key in params.get(section, ()))]
    return names


@contextmanager
def open_repo() -> Iterator[Repo]:
    """Yield DVC's view of this workspace; raises UserError if the folder is no DVC or no git repository."""
    try:
        repo = Repo()
        _ = repo.scm
    except NotDvcRepoError:
        remedy = "run `git init` and `dvc init`, or `dvc init --no-scm` to do without git"
        raise UserError(f"{Path.cwd()} is not a DVC repository: {remedy}.") from None
    except SCMError:
        remedy = "run `git init`, or `dvc config core.no_scm true` to do without git"
        raise UserError(f"{Path.cwd()} is not in a git repository: {remedy}.") from None
    with repo:
        yield repo


def is_no_empty_folder(record: logging.LogRecord) -> bool:
    """Return whether a message of DVC's is something else than the warning that no batches have arrived yet."""
    return not record.getMessage().endswith("is empty.")


def read_plan(targets: list[str], leave_out: Collection[str] = ()) -> Plan:
    """Return the plan for `targets` and all that they need; without targets, for the whole graph.

    Args:
        targets: stages, such as train@iris_mlp, or groups, such as train.
        leave_out: models that the whole graph does without; a target is never left out.

    Raises:
        UserError: a target is unknown, or DVC cannot read the graph.
    """
    patch_dvc()
    logging.getLogger("dvc.output").addFilter(is_no_empty_folder)
    repair_dvc_state()
    try:
        with open_repo() as repo, lock_repo(repo):  # within one lock, DVC reads the graph once
            graph = get_active_graph(repo.index.graph)
            names = {stage.addressing for stage in graph}
            groups = {name.partition("@")[0] for name in names}
            for target in targets:
                if target not in names | groups:
                    raise unknown_name("stage", target, names | groups, "The stages of dvc.yaml")
            stages = collect_stages(repo, targets) if targets else None
            order = [stage.addressing for stage in plan_repro(graph, stages)]
            needs = {stage.addressing: sorted(need.addressing for need in graph.successors(stage)) for stage in graph}
            status = repo.status(targets or None, with_deps=bool(targets))
    except DvcException as error:
        locked_stages()  # raises, with a remedy, if dvc.lock is the reason
        raise UserError(f"DVC cannot read the graph: {error}") from None
    plan = Plan(order, {name: needs[name] for name in order}, {name for name in status if name in names})
    return plan if targets else plan.without(leave_out)
