"""The registry's tags in git, named as GTO names them, so that GTO and `dvc artifacts get` read them.

`MODEL@vX.Y.Z` registers a version of a model, `MODEL#champion#N` makes one the champion; N counts up. Git writes them,
not GTO's functions: of two of these that write the same tag at once, the later overwrites the earlier, while git
refuses it. And GTO orders assignments by their dates in whole seconds, which are equal in quick succession; here each
tag of a model is dated at least a second after the previous one.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil
from filelock import FileLock, Timeout

from orchestration.git import GitError, git
from runtime.errors import UserError

STAGE = "champion"
ACTIONS = {"register": "{}@{}", "assign": "{}#{}#{}"}  # the names of tags
FIELDS = ("refname:strip=2", "objecttype", "*objecttype", "*objectname", "taggername", "taggerdate:unix", "contents")
FORMAT = "".join(f"%({field})%00" for field in FIELDS)
LOCK_SECONDS = 60  # to wait for another command that changes the registry
STALE_SECONDS = 2  # after which a lock that no process of git can hold was left by a killed one; git needs milliseconds

Action = Literal["register", "deregister", "assign", "unassign"]


class Tag(NamedTuple):
    """An annotated tag of the registry.

    version: of a registration. counter: N, 0 where the name has none. time: in whole seconds, with time zone. text:
    why. facts: what the command that wrote the tag knew, such as the verdict.
    """

    name: str
    model: str
    action: Action
    version: str
    counter: int
    commit: str
    author: str
    time: datetime
    text: str
    facts: dict[str, Any]


class Tags(NamedTuple):
    """What `read_tags` finds.

    tags: those of the registry. taken: the names of all tags. odd: for each tag that looks like one of the registry's
    and is none, the reason in words.
    """

    tags: list[Tag]
    taken: frozenset[str]
    odd: dict[str, str]


def read_tags() -> Tags:
    """Return the registry's tags; raises UserError where there is no git repository."""
    git_folder()
    names, tags, odd = [], [], {}
    printed = git("for-each-ref", "refs/tags", f"--format={FORMAT}").split("\0")
    for start in range(0, len(printed) - 1, len(FIELDS)):
        name, kind, target, *rest = printed[start : start + len(FIELDS)]
        name = name.lstrip("\n")
        names.append(name)
        if parsed := parse_name(name):
            if (kind, target) == ("tag", "commit"):
                tags.append(made_tag(name, parsed, rest))
            else:
                odd[name] = "it is no annotated tag of a commit"
        elif f"#{STAGE}" in name or "@v" in name:
            odd[name] = f"its name is neither MODEL@vX.Y.Z nor MODEL#{STAGE}#N"
    return Tags(tags, frozenset(names), odd)


def parse_name(name: str) -> dict[str, Any]:
    """Return model, action, version and counter of a tag's name; empty if it is none of the registry's."""
    from gto.tag import parse_name as parse

    parsed = parse(name, raise_on_fail=False)
    action = parsed["action"].value if parsed else ""
    staged = action in ("assign", "unassign") and parsed["stage"] == STAGE
    if ":" in parsed.get("name", ":") or not (staged or action in ("register", "deregister")):
        return {}  # another stage, a deprecation, or an artifact of another folder
    return {
        "model": parsed["name"],
        "action": action,
        "version": parsed.get("version", ""),
        "counter": parsed.get("counter", 0),
    }


def made_tag(name: str, parsed: dict[str, Any], fields: list[str]) -> Tag:
    commit, author, seconds, contents = fields
    text, facts = read_message(contents)
    when = datetime.fromtimestamp(int(seconds or 0), UTC)  # a tag of old git has no tagger
    return Tag(name=name, commit=commit, author=author, time=when, text=text, facts=facts, **parsed)


def message_of(text: str, facts: Mapping[str, Any]) -> str:
    """Return a tag's message: the text, and the facts as a line of JSON."""
    return f"{text.strip()}\n\n{json.dumps(dict(facts), ensure_ascii=False)}\n"


def read_message(contents: str) -> tuple[str, dict[str, Any]]:
    """Return text and facts of a tag's message; a tag that a person has made has no facts, a signed one more lines."""
    lines = contents.split("\n")
    for number, line in reversed([*enumerate(lines)]):
        if line.startswith("{"):
            try:
                facts = json.loads(line)
            except ValueError:
                break
            return "\n".join(lines[:number]).strip(), facts
    return contents.strip(), {}


@contextmanager
def registry_lock() -> Iterator[None]:
    """Keep other commands from changing the registry; raises UserError if one does so for LOCK_SECONDS."""
    lock = git_folder() / "registry.lock"
    try:
        with FileLock(lock, timeout=LOCK_SECONDS):
            yield
    except Timeout:
        raise UserError(f"another command has been changing the registry for {LOCK_SECONDS} s: stop it.") from None


def write_tag(name: str, commit: str, text: str, earliest: int) -> None:
    """Create an annotated tag; raises UserError if it exists already, or git refuses it.

    Args:
        name: as GTO names it.
        commit: what it marks.
        text: the tag's message.
        earliest: the least date in seconds since 1970; the tag's is that, or now.
    """
    remove_stale_lock(name)
    date = f"@{max(int(time.time()), earliest)} +0000"
    git("tag", "--annotate", "--cleanup=verbatim", "--file=-", name, commit, given=text, GIT_COMMITTER_DATE=date)


def refuse_unknown_writer() -> None:
    """Raise UserError where a tag cannot say who made it, or where tags may be missing."""
    git_folder()
    try:
        git("var", "GIT_COMMITTER_IDENT")
    except GitError:
        raise UserError(
            "git does not know who you are, which a tag of the registry says. Run `git config user.name NAME` and `git "
            "config user.email ADDRESS`."
        ) from None
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        raise UserError(
            "this clone is shallow, so tags of the registry may be missing. Run `git fetch --unshallow --tags`."
        )


def git_folder() -> Path:
    """Return the folder .git, for a worktree that of its repository.

    Raises UserError unless the current directory is the root of a git repository or worktree.
    """
    try:
        common, above, *_ = git("rev-parse", "--git-common-dir", "--show-prefix").split("\n")
    except GitError as error:
        if "not a git repository" not in str(error):
            raise
        raise UserError(
            f"{Path.cwd()} is not in a git repository, and the registry consists of tags in git: there are no versions "
            "and no champion. Run `git init` and commit to have them."
        ) from None
    if above:
        raise UserError(f"{Path.cwd()} is a folder within a git repository; the registry needs the repository's root.")
    return Path(common).resolve()


def remove_stale_lock(name: str) -> None:
    """Remove the lock that a killed git has left on a tag; raises UserError if a process of git may hold it."""
    lock = git_folder() / "refs/tags" / f"{name}.lock"
    deadline = time.monotonic() + STALE_SECONDS
    while lock.exists():
        if time.monotonic() > deadline:
            if running := processes_of_git():
                raise UserError(f"{lock}: process {running[0]} may be writing this tag. Wait for it, or stop it.")
            lock.unlink(missing_ok=True)
        time.sleep(0.05)


def processes_of_git() -> list[int]:
    """Return the ids of the processes of git that work in this repository or its worktrees."""
    listed = git("worktree", "list", "--porcelain").splitlines()
    roots = [git_folder(), *(Path(line.removeprefix("worktree ")) for line in listed if line.startswith("worktree "))]
    running = [process.info for process in psutil.process_iter(["pid", "name", "cwd"]) if process.info["name"] == "git"]
    return [
        process["pid"]
        for process in running
        if process["cwd"]
        and any(Path(process["cwd"]).is_relative_to(root) for root in roots)  # none where it has ended
    ]
