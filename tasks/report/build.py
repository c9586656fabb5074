"""Report: pages that work from a file without a network, and `summary.json`.

index.html has all models; models/ and datasets/ a page for each; assets/ what the pages' script needs.
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
from tasks.report.charts import drawn_beside
from tasks.report.dataset_page import describe_data
from tasks.report.formatting import duration, number, percent, signed, sourced
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
from tasks.report.summary import SummaryRow, write_summary

TEMPLATES = Path(__file__).parent / "templates"
bundle = partial(vl_convert.javascript_bundle, "window.vegaEmbed = vegaEmbed;")  # Vega for the pages' script


def report(params: Params, folder: Path, endings: dict[str, str]) -> None:
    """Write the pages and `summary.json` of all models and data sets of `params` into `folder`.

    endings: what became of the stages that a run did not do, such as "failed". `summary.json` is of whole runs alone:
    there is none then, nor where a model is missing. What is not there or damaged is told on its page.
    Raises UserError where there is no model.
    """
    artifacts = {name: read_artifacts(name) for name in params.models}
    if all(read.metrics is None for read in artifacts.values()):
        raise UserError(f"{paths.ARTIFACTS}: there is no model to report on. Run `make pipeline` or `dvc repro` first.")
    lecture_recipes = {name: read_lecture_recipe(name) for name in params.lecture_recipes}
    baselines = read_baselines(params)
    data = {name: read_data(name) for name in params.datasets}
    summary = summarize(params, artifacts, lecture_recipes, baselines)
    if not endings and len(summary) == len(params.models) + len(params.baselines):
        write_summary(summary, folder)

    with drawn_beside() as processes:
        script = processes.submit(bundle)  # which takes a second or two
        pages = describe_pages(params, summary, artifacts, lecture_recipes, baselines, data, endings)
        write = page_writer(params, folder)
        for page in pages:  # as they are all described, their charts are being drawn
            write(page)
        write_assets(folder / "assets", script.result())


@dataclass(frozen=True)
class Page:
    """A page of the report. sources: of the figures on it, real or sample. values: what the template shows."""

    path: str
    template: str
    sources: list[str]
    values: dict[str, Any]


def describe_pages(
    params: Params,
    summary: list[SummaryRow],
    artifacts: dict[str, Artifacts],
    lecture_recipes: dict[str, LectureRecipe | None],
    baselines: dict[str, BaselineResult],
    data: dict[str, Data],
    endings: dict[str, str],
) -> list[Page]:
    overview = describe_overview(params, summary, artifacts, data, endings)
    pages = [Page("index.html", "overview.html.jinja", [row.source for row in summary], overview)]
    for name, read in artifacts.items():
        recipe = params.models[name]
        rivals = {
            other: rival
            for other, rival in baselines.items()
            if (rival.metrics.dataset, rival.metrics.target) == (recipe.dataset, recipe.target)
        }
        ending = endings.get(f"train@{name}")
        described = describe_model(read, params, data[recipe.dataset], lecture_recipes.get(name), rivals, ending)
        pages.append(Page(f"models/{name}.html", "model.html.jinja", sources_of(read.metrics), described))
    for name, known in data.items():
        used_by = [model for model, recipe in params.models.items() if recipe.dataset == name]
        described = describe_data(known, used_by)
        pages.append(Page(f"datasets/{name}.html", "dataset.html.jinja", sources_of(known.provenance), described))
    return pages


def comparison(params: Params, old: str, new: str, folder: Path) -> None:
    """Write `compare.html`, what differs between two revisions, into `folder`; see `compare` for what it raises."""
    from tasks.report.comparison import compare  # brings DVC, which the report does without

    page = Page("compare.html", "comparison.html.jinja", [params.data.source], compare(old, new))
    page_writer(params, folder)(page)
    if not (paths.REPORTS / "assets").exists():
        write_assets(folder / "assets", bundle())


def sources_of(facts: ModelMetrics | Provenance | None) -> list[str]:
    return [facts.source] if facts else []


def page_writer(params: Params, folder: Path) -> Callable[[Page], None]:
    """Return what writes a page below `folder`."""
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
    environment.globals["sourced"] = sourced
    return environment


def write_assets(folder: Path, vega: str) -> None:
    """Write the pages' script, and Vega for it, which draws a chart anew when it is pointed at."""
    folder.mkdir()
    shutil.copy(TEMPLATES / "report.js", folder)
    (folder / "vega.js").write_text(vega, encoding="utf-8")


report_task = task(report)
comparison_task = task(comparison)
