"""Errors whose message is meant for the person at the prompt.

A `UserError` says what is wrong (file or key, value) and how to fix it. The command line prints the message alone and
ends with exit code 1. Every other exception is a defect of this project and keeps its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A problem that the user can fix: a wrong name or value, a damaged or missing file."""


class SourceUnreachableError(UserError):
    """A data set is not in its loader's cache and cannot be downloaded; worth a retry."""


def unknown_name(kind: str, name: str, valid: Iterable[str], where: str) -> UserError:
    """Return the error for an unknown name.

    Args:
        kind: what it should name, such as "model".
        name: as the user gave it.
        valid: the names that exist; the message lists them, and suggests a similar one.
        where: what these names are, such as "The models of params.yaml".
    """
    choices = sorted(valid)
    close = get_close_matches(name, choices, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return UserError(f"unknown {kind} {shortened(repr(name))}.{hint} {where}: {', '.join(choices) or '(none)'}.")


def shortened(text: str, max_length: int = 80) -> str:
    """Return `text` for a message, cut if it is longer than `max_length`, and then with its length."""
    return text if len(text) <= max_length else f"{text[: max_length - 20]}... ({len(text)} characters)"
