"""Judge a trained model against the champion of the registry, and write artifacts/M/verdict.json."""

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from config import paths
from config.params import load_params
from orchestration.candidates import find_candidate, judge_candidate
from orchestration.command_line import run
from runtime.atomic_outputs import atomic_files
from tasks.promotion.verdict import Verdict, to_markdown, write_verdict


@flow(name="judge", flow_run_name="judge-{model}")
def judge(model: str) -> Verdict | None:
    """Judge the candidate `model`, a name of params.yaml; None if it is the champion, or judged already."""
    load_params().model(model)
    logger = get_run_logger()
    candidate = find_candidate(model)
    if not candidate:
        logger.info("%s: there is nothing to judge: it is the champion, or judged already", model)
        return None
    verdict = judge_candidate(candidate)
    with atomic_files(paths.artifacts_folder(model), "verdict") as folder:
        write_verdict(verdict, folder)
    decision = "promote" if verdict.promote else "do not promote"
    logger.info("%s: %s, %s: %s", model, verdict.outcome, decision, verdict.reason)
    create_markdown_artifact(
        key=f"verdict-{model.replace('_', '-')}", markdown=to_markdown(verdict), description=verdict.outcome
    )
    return verdict


if __name__ == "__main__":
    run(judge)
