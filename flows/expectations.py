"""Infer what new rows of a data set must be like: train rows -> data/expectations/D.yaml, to be reviewed and committed.

Where the file is there already, the difference is shown, and --force replaces it.
"""

import argparse
import difflib
import sys

from config import paths
from config.params import load_params
from datasets import get_dataset
from orchestration.command_line import exit_on_user_error
from runtime.atomic_outputs import write_text
from runtime.disk import refuse_unless_file
from runtime.errors import UserError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.expectations", description=__doc__)
    parser.add_argument("dataset", help="a name below `datasets` in params.yaml")
    parser.add_argument("--force", action="store_true", help="replace a file that says something else")
    arguments = parser.parse_args()
    with exit_on_user_error():
        infer_file(arguments.dataset, arguments.force)
    return 0


def infer_file(name: str, force: bool) -> None:
    """Write data/expectations/D.yaml; raises UserError where another one is there, unless `force` replaces it."""
    load_params().dataset(name)
    from tasks.arrivals.expectation_file import to_text
    from tasks.arrivals.inference import infer, slack_of
    from tasks.arrivals.train_rows import read_train_rows

    dataset, path = get_dataset(name), paths.expectations_file(name)
    train, source = read_train_rows(dataset)
    inferred = to_text(infer(dataset, train, source), slack_of(train.num_rows))
    refuse_unless_file(path)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if before == inferred:
        print(f"{path} says what the train rows suggest; nothing to do.")
        return
    if before:
        print("".join(difference(before, inferred)), end="")
        if not force:
            raise UserError(f"{path} says something else than the train rows suggest (above); --force replaces it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, inferred)
    print(
        f"{path} is written, from {train.num_rows:,} {source} train rows. Review it before you commit it:\n"
        "- range: can an honest value lie outside? Can a wrong one lie inside? Train shows only what it happened to "
        "hold.\n"
        "- rows: how few, and how many, does an honest batch have?\n"
        "- tolerance, repeats: how much may a batch differ from train? A different mix of rows is drift, which is "
        "told apart from a mistake."
    )


def difference(before: str, after: str) -> list[str]:
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return list(difflib.unified_diff(old, new, "as it is", "as inferred", n=0))


if __name__ == "__main__":
    sys.exit(main())
