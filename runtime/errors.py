"""Errors whose message is meant for the person at the prompt.

A `UserError` says what is wrong (file or key, value) and how to mend it. The command line prints
the message alone and ends with exit code 1; every other exception is a defect of this project and
keeps its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can mend: a wrong name or value, a damaged or missing file."""


class SourceUnreachableError(UserError):
    """A data set is neither in its loader's cache nor to be had over the network; worth a retry."""


def unknown_name(kind: str, name: str, valid: Iterable[str], where: str) -> UserError:
    """Return the error for a name that is not one of `valid`, which the message lists."""
    choices = sorted(valid)
    close = get_close_matches(name, choices, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return UserError(f"unknown {kind} {shortened(repr(name))}.{hint} {where}: {', '.join(choices) or '(none)'}.")


def shortened(text: str, most: int = 80) -> str:
    """Return `text`, of which a message shows at most so many characters, and how many it has."""
    return text if len(text) <= most else f"{text[: most - 20]}... ({len(text)} characters)"
