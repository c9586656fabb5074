"""What the registry's tags say: the versions of each model, its champion, and its history."""

import re
from collections.abc import Iterable
from datetime import datetime
from difflib import get_close_matches
from typing import Any, NamedTuple

from config import paths
from config.params import parse_values
from orchestration.registry_tags import Tag, Tags
from runtime.errors import UserError, shortened, unknown_name

FIRST_VERSION = "v0.0.1"  # as GTO begins
SHOWN = 10  # versions, in a message
EVENTS = {"register": "registration", "deregister": "deregistration", "assign": "promotion", "unassign": "withdrawal"}


class Version(NamedTuple):
    """A version of a model.

    version: such as v0.0.3. commit: the hash of the commit that it marks. author: who registered it. time: when, with
    time zone. message: why. facts: what else the tag holds, such as the verdict.
    """

    model: str
    version: str
    commit: str
    author: str
    time: datetime
    message: str
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.model}@{self.version}"


class Event(NamedTuple):
    """What happened to a model: a tag of the registry.

    event: "registration", "promotion" or "rollback"; "deregistration" or "withdrawal" by GTO's own command. version:
    None where the commit has none. The rest is as in `Version`.
    """

    model: str
    event: str
    version: str | None
    commit: str
    author: str
    time: datetime
    message: str
    facts: dict[str, Any]
    tag: str


class Summary(NamedTuple):
    """The state of a model.

    champion: None where there is none, or where `fault` says why it is unknown. since: the event that made it the
    champion. versions: the lowest first.
    """

    model: str
    champion: Version | None
    since: Event | None
    versions: list[Version]
    fault: str | None


def check_model(tags: Tags, model: str) -> None:
    """Raise UserError, with the similar names, for a model that is unknown or that GTO cannot name."""
    from gto.constants import name_re

    models = models_of(tags)
    if model not in models:
        raise unknown_name("model", model, models, f"The models of {paths.PARAMS} and the registry")
    if not name_re.match(model):
        raise UserError(
            f"{model} can have no versions: GTO, which names them, takes no name that ends with _. Rename it."
        )


def model_in(name: str) -> str:
    """Return the model that a tag's name begins with."""
    return re.split("[@#]", name)[0]


def models_of(tags: Tags) -> list[str]:
    return sorted({*models_of_params(), *(tag.model for tag in tags.tags)})


def models_of_params() -> Iterable[str]:
    """Return the models of params.yaml as far as it can be read: a fault in it must not stand in a rollback's way."""
    try:
        return dict(parse_values(paths.PARAMS.read_text(encoding="utf-8"), paths.PARAMS))["models"].keys()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, UserError):
        return ()


def version_in(tags: Tags, model: str, version: str) -> Version:
    check_model(tags, model)
    found = {known.version: known for known in versions_of(tags.tags, model)}
    if version in found:
        return found[version]
    close = get_close_matches(version, found, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    newest = ", ".join([*found][: -SHOWN - 1 : -1]) or "(none)"
    raise UserError(f"{model} has no version {shortened(version)}.{hint} Its versions, the newest first: {newest}.")


def versions_of(tags: list[Tag], model: str) -> list[Version]:
    from gto.versions import SemVer

    own = [tag for tag in tags if tag.model == model]
    ended = {tag.version: tag.counter for tag in own if tag.action == "deregister"}
    active = [tag for tag in own if tag.action == "register" and tag.counter >= ended.get(tag.version, -1) + 1]
    made = {
        tag.version: Version(model, tag.version, tag.commit, tag.author, tag.time, tag.text, facts_of(tag))
        for tag in active
    }
    return sorted(made.values(), key=lambda version: SemVer(version.version))


def version_at(found: list[Version], commit: str) -> Version | None:
    """Return the version of a commit; the highest, where a person has given it several."""
    return next((version for version in reversed(found) if version.commit == commit), None)


def assignments_of(tags: list[Tag], model: str) -> list[Tag]:
    """Return the tags that assign or withdraw the stage, in the order of their counters."""
    staged = [tag for tag in tags if tag.model == model and tag.action in ("assign", "unassign")]
    return sorted(staged, key=lambda tag: (tag.counter, tag.name))


def standing_of(tags: list[Tag], model: str) -> list[Tag]:
    """Return the assignments that stand, the champion's last: of each commit the last one, unless it was withdrawn."""
    standing: dict[str, Tag] = {}
    for tag in assignments_of(tags, model):
        standing.pop(tag.commit, None)
        if tag.action == "assign":
            standing[tag.commit] = tag
    return [*standing.values()]


def champion_of(tags: list[Tag], model: str) -> Version | None:
    standing = standing_of(tags, model)
    if not standing:
        return None
    tag = standing[-1]
    if found := version_at(versions_of(tags, model), tag.commit):
        return found
    raise UserError(
        f"the tag {tag.name} marks commit {tag.commit[:7]} as the champion, but no tag {model}@vX.Y.Z is there. "
        f"Restore this tag (`git fetch --tags`, `gto register {model} {tag.commit[:7]}`), or promote another version."
    )


def summary_of(tags: list[Tag], model: str) -> Summary:
    known = versions_of(tags, model)
    try:
        now = champion_of(tags, model)
    except UserError as error:
        return Summary(model, None, None, known, str(error))
    return Summary(model, now, event_of(known, standing_of(tags, model)[-1]) if now else None, known, None)


def previous_champion(tags: list[Tag], model: str) -> Version:
    """Return the champion before the present one; raises UserError if there is none. See `rollback`."""
    reigns: list[str] = []
    for tag in assignments_of(tags, model):
        if tag.action == "unassign":
            reigns = [commit for commit in reigns if commit != tag.commit]
        elif tag.facts.get("action") == "rollback" and tag.commit in reigns:
            del reigns[len(reigns) - reigns[::-1].index(tag.commit) :]
        else:
            reigns.append(tag.commit)
    standing = standing_of(tags, model)
    present = standing[-1].commit if standing else None
    known = versions_of(tags, model)
    for commit in reversed(reigns):
        if commit != present and (found := version_at(known, commit)):
            return found
    now = champion_of(tags, model)
    told = f"{now.name} is its first champion" if now else "it has no champion"
    raise UserError(f"{model} has no earlier champion to go back to: {told}.")


def event_of(known: list[Version], tag: Tag) -> Event:
    """Return what a tag says. known: the versions of its model."""
    event = "rollback" if tag.facts.get("action") == "rollback" else EVENTS[tag.action]
    found = version_at(known, tag.commit)
    version = tag.version or (found.version if found else None)
    return Event(tag.model, event, version, tag.commit, tag.author, tag.time, tag.text, facts_of(tag), tag.name)


def facts_of(tag: Tag) -> dict[str, Any]:
    return {key: value for key, value in tag.facts.items() if key not in ("action", "version")}


def events_of(tags: list[Tag], model: str) -> list[tuple[tuple, Event]]:
    """Return the events of a model, each with what orders it: assignments by their counters, whatever their dates."""
    known = versions_of(tags, model)
    dated = []
    latest = None
    for tag in assignments_of(tags, model):
        latest = max(latest, tag.time) if latest else tag.time
        dated.append(((latest, tag.counter), event_of(known, tag)))
    others = [tag for tag in tags if tag.model == model and tag.action in ("register", "deregister")]
    return dated + [((tag.time, 0), event_of(known, tag)) for tag in others]


def next_version(tags: Tags, model: str) -> str:
    """Return the version after the highest that ever had a tag."""
    from gto.versions import SemVer

    names = [
        name.removeprefix(f"{model}@").partition("!")[0].partition("#")[0]
        for name in tags.taken
        if name.startswith(f"{model}@")
    ]
    used = sorted(SemVer(name) for name in names if SemVer.is_valid(name))
    return used[-1].bump_patch().version if used else FIRST_VERSION


def next_counter(tags: Tags, model: str) -> int:
    """Return the counter after the greatest of the model, in any stage, as GTO counts."""
    found = (re.fullmatch(rf"{model}[#@].*#(\d+)", name) for name in tags.taken)
    return 1 + max((int(match[1]) for match in found if match), default=0)


def earliest(tags: list[Tag], model: str) -> int:
    """Return the least date of the model's next tag, in seconds: after all others, since GTO orders them by date."""
    return int(max((tag.time.timestamp() + 1 for tag in tags if tag.model == model), default=0))
