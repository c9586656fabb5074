"""Find the services of a Prefect server that fail repeatedly, in its log.

Without its scheduler, for example, the server creates no runs, while the UI looks healthy.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# A record in Prefect's format; the lines of a traceback follow.
RECORD = re.compile(r"^\d\d:\d\d:\d\d\.\d+ \| (?P<level>[A-Z]+) *\| (?P<logger>\S+) - (?P<message>.*)$")
# docket, which runs the services, logs `↩ [  8ms] schedule_deployments(){...}` when one fails.
SERVICE = re.compile(r"↩ \[[^]]*\] (\w+)\(")
# The last line of a traceback.
REASON = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit|Warning)\b")
REPEATED = 2  # failures; one may be chance


@dataclass
class LogWatch:
    """The state of reading a log.

    position: how far it was read. failing, reason: the error that was read last. failures: how often each service has
    failed. named: the services that were reported.
    """

    path: Path
    position: int = 0
    failing: str | None = None
    reason: str = ""
    failures: dict[str, int] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)


def repeated_failures(watch: LogWatch) -> Iterator[str]:
    """Read the log from where the last call ended; yield a line, once, for each service that fails repeatedly."""
    for line in new_lines(watch):
        if record := RECORD.match(line):
            yield from conclude(watch)
            watch.failing = source(record) if record["level"] in ("ERROR", "CRITICAL") else None
            watch.reason = ""
        elif watch.failing and not watch.reason and REASON.match(line):
            watch.reason = line.strip()
    yield from conclude(watch)


def conclude(watch: LogWatch) -> Iterator[str]:
    """Count the error that was read last, and yield its line if it is a repeated one."""
    name, watch.failing = watch.failing, None
    if not name:
        return
    watch.failures[name] = watch.failures.get(name, 0) + 1
    if watch.failures[name] >= REPEATED and name not in watch.named:
        watch.named.add(name)
        reason = f": {watch.reason}" if watch.reason else ""
        yield f"{name} of the server fails repeatedly{reason} (see {watch.path})"


def source(record: re.Match[str]) -> str:
    """Return what has failed: the name of the service, or else of the logger."""
    service = SERVICE.search(record["message"])
    return f"the service {service[1]}" if service else record["logger"]


def new_lines(watch: LogWatch) -> list[str]:
    """Return the complete lines since the last call; a log that has become shorter is read from its beginning."""
    try:
        size = watch.path.stat().st_size
        if size < watch.position:
            watch.position = 0
        with watch.path.open("rb") as log:
            log.seek(watch.position)
            text = log.read()
    except FileNotFoundError:
        return []
    whole = text[: text.rfind(b"\n") + 1]
    watch.position += len(whole)
    return whole.decode(errors="replace").splitlines()


def last_lines(path: Path, count: int = 15) -> str:
    """Return the end of a log, for a message."""
    text = path.read_text(errors="replace") if path.exists() else ""
    lines = text.strip().splitlines()[-count:]
    return "\n".join(line[:300] for line in lines)
