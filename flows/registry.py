"""The registry of models: list the champions, show what happened, promote a version, go back to an earlier champion.

Versions and champions are GTO's tags in git; `git push --tags` and `dvc push --all-tags` share them.
"""

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestration import registry
from orchestration.command_line import exit_on_user_error
from orchestration.registry_state import Event, Summary
from runtime.errors import UserError

WIDTH = 100  # of the tables, outside of a terminal
SECONDS = "%Y-%m-%d %H:%M:%S"
INTERRUPTED = "interrupted; `python -m flows.registry history` shows what has happened."


def main() -> int:
    arguments = parser().parse_args()
    with exit_on_user_error(INTERRUPTED):
        arguments.run(arguments)
    return 0


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(prog="python -m flows.registry", description=__doc__)
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], None], told: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=told, description=f"{told[0].upper()}{told[1:]}.")
        command.set_defaults(run=run)
        return command

    listed = add("list", show_list, "list each model's champion and newest version")
    shown = add("history", show_history, "show what was registered, promoted and taken back, and why")
    shown.add_argument("model", nargs="?", help="all models unless given")
    for command in (listed, shown):
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    promoted = add("promote", promote, "make a version the champion of its model")
    promoted.add_argument("version", metavar="MODEL@VERSION", help="such as iris_mlp@v0.0.3")
    returned = add("rollback", roll_back, "make an earlier champion the champion again")
    returned.add_argument("model")
    returned.add_argument("version", nargs="?", help="the champion before the present one unless given")
    for command in (promoted, returned):
        command.add_argument("--message", metavar="WHY", default="by hand", help="why; the tag keeps it")
    return whole


def show_list(arguments: argparse.Namespace) -> None:
    summaries, warnings = registry.overview()
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    rows = [row_of(summary) for summary in summaries]
    table = Table("model", "champion", "since (UTC)", "by", "newest", "versions", title="Registry")
    for row in rows:
        shown = (row[key] or "none" for key in ("model", "champion", "since", "by", "newest"))
        table.add_row(*shown, str(len(row["versions"])))
    show(rows, table, arguments.json)


def show_history(arguments: argparse.Namespace) -> None:
    events = registry.history(arguments.model)
    table = Table("when (UTC)", "model", "event", "version", "by", "why", title="History")
    for event in events:
        facts = ", ".join(f"{key} {value}" for key, value in event.facts.items() if value is not None)
        why = f"{event.message} ({facts})" if facts else event.message
        table.add_row(
            f"{event.time:{SECONDS}}", event.model, event.event, event.version or event.commit[:7], event.author, why
        )
    show([{**event._asdict(), "time": event.time.isoformat()} for event in events], table, arguments.json)


def show(rows: list[dict[str, Any]], table: Table, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
    elif rows:
        (Console() if sys.stdout.isatty() else Console(width=WIDTH)).print(table)
    else:
        print("There is no version yet.")


def promote(arguments: argparse.Namespace) -> None:
    model, version = registry.split_name(arguments.version)
    tell(lambda expected: registry.promote(model, version, arguments.message, expected=expected), model)


def roll_back(arguments: argparse.Namespace) -> None:
    model, version = arguments.model, arguments.version
    tell(lambda expected: registry.rollback(model, version, arguments.message, expected=expected), model)


def tell(change: Callable[[registry.Expected], Event], model: str) -> None:
    """Make a change of the champion that stands now, and print what has changed."""
    expected: registry.Expected = "any"
    with suppress(UserError):  # the champion's version is missing, which a promotion mends
        expected = registry.champion(model)
    event = change(expected)
    if isinstance(expected, registry.Version) and expected.commit == event.commit:
        print(f"{model}@{event.version} is the champion already; nothing has changed.")
    else:
        print(f"{model}@{event.version} is the champion; the tag {event.tag} says so.")


def row_of(summary: Summary) -> dict[str, Any]:
    since = summary.since
    return {
        "model": summary.model,
        "champion": summary.champion.version if summary.champion else None,
        "since": f"{since.time:{SECONDS}}" if since else None,
        "by": since.author if since else None,
        "newest": summary.versions[-1].version,
        "versions": [version.version for version in summary.versions],
    }


if __name__ == "__main__":
    sys.exit(main())
