"""What fails again and again in a Prefect server, read from its log: the scheduler, for example, without which no run
is created while the UI looks well.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# A record as Prefect's formatter writes it; the lines of a traceback follow.
RECORD = re.compile(r"^\d\d:\d\d:\d\d\.\d+ \| (?P<level>[A-Z]+) *\| (?P<logger>\S+) - (?P<message>.*)$")
# docket, which runs the services, logs `↩ [  8ms] schedule_deployments(){...}` when one has failed.
SERVICE = re.compile(r"↩ \[[^]]*\] (\w+)\(")
# The last line of a traceback.
REASON = re.compile(r"^[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit|Warning)\b")
REPEATED = 2  # one error may be chance


@dataclass
class LogWatch:
    """How far a log has been read. failures: how often each service has failed; named: those that were returned."""

    path: Path
    position: int = 0
    failing: str | None = None
    reason: str = ""
    failures: dict[str, int] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)


def repeated_failures(watch: LogWatch) -> Iterator[str]:
    """Read what was written to the log since the last call, and yield a line for each service that fails repeatedly.

    Each service is named once.
    """
    for line in new_lines(watch):
        if record := RECORD.match(line):
            yield from conclude(watch)
            watch.failing = source(record) if record["level"] in ("ERROR", "CRITICAL") else None
            watch.reason = ""
        elif watch.failing and not watch.reason and REASON.match(line):
            watch.reason = line.strip()
    yield from conclude(watch)


def conclude(watch: LogWatch) -> Iterator[str]:
    """Count the error that was read last, and yield its line where it is a repeated one."""
    name, watch.failing = watch.failing, None
    if not name:
        return
    watch.failures[name] = watch.failures.get(name, 0) + 1
    if watch.failures[name] >= REPEATED and name not in watch.named:
        watch.named.add(name)
        reason = f": {watch.reason}" if watch.reason else ""
        yield f"{name} of the server fails repeatedly{reason} (see {watch.path})"


def source(record: re.Match[str]) -> str:
    """Return what has failed: the service's name, or the logger's where it is no service."""
    service = SERVICE.search(record["message"])
    return f"the service {service[1]}" if service else record["logger"]


def new_lines(watch: LogWatch) -> list[str]:
    """Return the whole lines that were written since the last call; a log that has become shorter is another one."""
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
