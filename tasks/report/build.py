"""Build the report: pages that open from a file without a network, and `summary.json`.

index.html compares all models; models/, datasets/ and search/ have a page for each; assets/ holds the scripts.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from prefect import task

from config import paths
from config.params import Params
from runtime.errors import UserError
from tasks.data.raw import Provenance
from tasks.evaluation.metrics_files import ModelMetrics
from tasks.report.charts import chart_pool
from tasks.report.convolution_page import describe_convolution
from tasks.report.dataset_page import describe_data
from tasks.report.formatting import MARKS, duration, number, percent, signed, sourced
from tasks.report.index_page import describe_overview, summarize
from tasks.report.model_page import describe_model
from tasks.report.read import (
    Artifacts,
    BaselineResult,
    Data,
    LectureRecipe,
    read_artifacts,
    read_baselines,
    read_data,
    read_lecture_recipe,
)
from tasks.report.search_page import Search, describe_search, read_search
from tasks.report.summary import SummaryRow, write_summary
from tasks.report.verdict import SAME_TARGET
from tasks.search.results import SearchMetrics

TEMPLATES = Path(__file__).parent / "templates"
# The page loads this script; without a file, the browser would log an error. `make pipeline` replaces it.
NO_RUN = "window.lastRun = null;\n"
bundle = partial(vl_convert.javascript_bundle, "window.vegaEmbed = vegaEmbed;")  # Vega


def report(params: Params, folder: Path, statuses: dict[str, str]) -> None:
    """Write the pages of all models and data sets, and `summary.json`.

    A file that is missing or damaged is named on its page. `summary.json` is written only if every stage is done and
    every model is there.

    Args:
        params: the parameters of the workspace.
        folder: an empty folder, for `paths.REPORTS`.
        statuses: the status, such as "failed", of each stage that the last run did not complete.

    Raises:
        UserError: if there is no model.
    """
    artifacts = {name: read_artifacts(name) for name in params.models}
    if all(read.metrics is None for read in artifacts.values()):
        raise UserError(f"{paths.ARTIFACTS}: there is no model to report on. Run `make pipeline` or `dvc repro` first.")
    recipes = {name: read_lecture_recipe(name) for name in params.lecture_recipes}
    baselines = read_baselines(params)
    data = {name: read_data(name) for name in params.datasets}
    searches = {name: read_search(name) for name in params.search}
    summary = summarize(params, artifacts, recipes, baselines)
    expected = {*params.models, *params.baselines} - {*params.leave_out}
    if not statuses and expected <= {row.name for row in summary}:
        write_summary(summary, folder)

    with chart_pool() as processes:
        script = processes.submit(bundle)  # which takes a second or two
        pages = describe_pages(params, summary, artifacts, recipes, baselines, data, searches, statuses)
        write = page_writer(params, folder)
        for page in pages:  # the pool renders the charts of all pages meanwhile
            write(page)
        write_assets(folder / "assets", script.result())
    (folder / "search").mkdir(exist_ok=True)  # DVC wants it also without a search
    if not paths.LAST_RUN.exists():
        (folder / paths.LAST_RUN.name).write_text(NO_RUN, encoding="utf-8")


@dataclass(frozen=True)
class Page:
    """A page of the report. sources: of its metrics, real or sample. values: what the template shows."""

    path: str
    template: str
    sources: list[str]
    values: dict[str, Any]


def describe_pages(
    params: Params,
    summary: list[SummaryRow],
    artifacts: dict[str, Artifacts],
    recipes: dict[str, LectureRecipe | None],
    baselines: dict[str, BaselineResult],
    data: dict[str, Data],
    searches: dict[str, Search],
    statuses: dict[str, str],
) -> list[Page]:
    """Return all pages.

    Args:
        params: the parameters of the workspace.
        summary: of `summarize`.
        artifacts: what `train` wrote, by model.
        recipes: the runs by the lecture recipe, by model.
        baselines: what `baselines` wrote, by name.
        data: what `ingest` and `prepare` wrote, by data set.
        searches: what `search` wrote, by model.
        statuses: the status of each stage that the last run did not complete.
    """
    overview = describe_overview(params, summary, artifacts, data, searches, statuses)
    pages = [Page("index.html", "overview.html.jinja", [row.source for row in summary], overview)]
    for name, read in artifacts.items():
        recipe = params.models[name]
        compared = {
            other: baseline
            for other, baseline in baselines.items()
            if baseline.metrics.dataset == recipe.dataset
            and baseline.metrics.target == SAME_TARGET.get(recipe.target, recipe.target)
        }
        status = statuses.get(f"train@{name}")
        described = describe_model(read, params, data[recipe.dataset], recipes.get(name), compared, status)
        pages.append(Page(f"models/{name}.html", "model.html.jinja", sources_of(read.metrics), described))
    for name, known in data.items():
        used_by = [model for model, recipe in params.models.items() if recipe.dataset == name]
        described = describe_data(known, used_by)
        pages.append(Page(f"datasets/{name}.html", "dataset.html.jinja", sources_of(known.provenance), described))
    pages.append(Page("convolution.html", "convolution.html.jinja", [], describe_convolution()))
    for name, search in searches.items():
        described = describe_search(search, params)
        pages.append(Page(f"search/{name}.html", "search.html.jinja", sources_of(search.metrics), described))
    return pages


def comparison(params: Params, old: str, new: str, folder: Path) -> None:
    """Write `compare.html`, the differences between two revisions.

    Args:
        params: the parameters of the workspace.
        old: a revision.
        new: another one.
        folder: an empty folder, for `paths.REPORTS`.

    Raises:
        UserError: for an unknown revision, and outside git.
    """
    from tasks.report.comparison import compare  # imports DVC, which the report does not need

    page = Page("compare.html", "comparison.html.jinja", [params.data.source], compare(old, new))
    page_writer(params, folder)(page)
    if not (paths.REPORTS / "assets").exists():
        write_assets(folder / "assets", bundle())


def sources_of(facts: ModelMetrics | Provenance | SearchMetrics | None) -> list[str]:
    return [facts.source] if facts else []


def page_writer(params: Params, folder: Path) -> Callable[[Page], None]:
    """Return a function that writes a page below `folder`."""
    templates = open_templates()
    common = {"models": list(params.models), "datasets": list(params.datasets)}

    def write(page: Page) -> None:
        sample = {("sample",): "all", ("real",): "", (): ""}.get(tuple(sorted(set(page.sources))), "some")
        here = {"root": "../" * page.path.count("/"), "here": page.path, "sample": sample}
        target = folder / page.path
        target.parent.mkdir(exist_ok=True)
        text = templates.get_template(page.template).render(**common, **here, page=page.values)
        target.write_text(text, encoding="utf-8")

    return write


def open_templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"number": number, "signed": signed, "duration": duration, "percent": percent}
    environment.globals |= {"sourced": sourced, "marks": MARKS}
    return environment


def write_assets(folder: Path, vega: str) -> None:
    """Write the pages' script, and Vega, by which it makes charts interactive."""
    folder.mkdir()
    shutil.copy(TEMPLATES / "report.js", folder)
    (folder / "vega.js").write_text(vega, encoding="utf-8")


report_task = task(report)
comparison_task = task(comparison)
