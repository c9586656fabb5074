"""Model card: `README.md` of a trained model: what it is for, how good it is, and what it must not be used for.

The sections are those of Mitchell et al., Model Cards for Model Reporting, 2019; the head is what model hubs read.
"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from prefect import task

from config.params import ModelParams
from datasets import get_dataset
from tasks.data.raw import read_provenance
from tasks.evaluation.metrics_files import ModelMetrics
from tasks.publishing.export_record import ExportRecord
from tasks.publishing.usage import ways

TEMPLATE = "model_card.md.jinja"


def write_card(
    metrics: ModelMetrics, params: ModelParams, record: ExportRecord, is_of_notes: bool, folder: Path
) -> None:
    """Write `README.md`, the same at each run.

    Args:
        metrics: of the model.
        params: its recipe.
        record: what its export takes, and its formats.
        is_of_notes: whether the lecture notes have such a model.
        folder: what the training publishes.
    """
    dataset = get_dataset(params.dataset)
    templates = Environment(  # of Markdown, in which nothing needs escaping
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["number"] = number
    text = templates.get_template(TEMPLATE).render(
        metrics=metrics,
        params=params,
        dataset=dataset,
        provenance=read_provenance(dataset),
        record=record,
        is_of_notes=is_of_notes,
        ways=ways(metrics.name, record),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


write_card_task = task(write_card)
