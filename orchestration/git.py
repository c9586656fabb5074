"""Git by its command, which takes its own locks, knows who the user is, and obeys the user's configuration."""

import os
import subprocess

from runtime.errors import UserError


class GitError(UserError):
    """Git refused; the message is git's own."""


def git(*words: str, given: str | None = None, **variables: str) -> str:
    """Return what a command of git prints.

    Args:
        words: the command, without "git".
        given: what it reads from its standard input; nothing if None.
        variables: of its environment, besides those of this process.

    Raises:
        GitError: the command fails, with what it printed to its standard error.
        UserError: git is not installed.
    """
    try:
        done = subprocess.run(
            ["git", *words],
            input=os.fsencode(given or ""),
            env={**os.environ, "LC_ALL": "C", **variables},
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise UserError("git is not installed, or not on PATH: install it.") from None
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise GitError(f"git {words[0]}: {told}")
    return os.fsdecode(done.stdout)
