"""The registry of models: which versions there are, which one is each model's champion, and what was before.

It consists of GTO's tags in git. A version is a commit with dvc.lock, params.yaml and the model's metrics; its files
are in DVC's cache or remote. The champion is the version assigned last, that of the greatest N of `MODEL#champion#N`.

A promotion is one tag, which git writes whole or not at all, so a model has one champion at every moment. Nothing is
ever removed: going back to an earlier version is a further tag.
"""

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from config import paths
from orchestration.git import GitError, git
from orchestration.registry_state import (
    FIRST_VERSION,
    Event,
    Summary,
    Version,
    assignments_of,
    champion_of,
    check_model,
    earliest,
    event_of,
    events_of,
    model_in,
    models_of,
    next_counter,
    next_version,
    previous_champion,
    standing_of,
    summary_of,
    version_at,
    version_in,
    versions_of,
)
from orchestration.registry_tags import (
    ACTIONS,
    STAGE,
    Tag,
    message_of,
    read_tags,
    refuse_unknown_writer,
    registry_lock,
    write_tag,
)
from runtime.errors import UserError, shortened

TRIES = 5  # to write a tag whose name another program takes at the same moment


Expected = Version | None | Literal["any"]


def versions(model: str) -> list[Version]:
    """Return the versions of `model`, the lowest first; raises UserError for an unknown model."""
    tags = read_tags()
    check_model(tags, model)
    return versions_of(tags.tags, model)


def champion(model: str) -> Version | None:
    """Return the champion of `model`, None if it has none yet.

    Raises UserError for an unknown model, and if the commit that is marked as its champion has no version.
    """
    tags = read_tags()
    check_model(tags, model)
    return champion_of(tags.tags, model)


def history(model: str | None = None) -> list[Event]:
    """Return what happened to `model`, or to all models, the last first; raises UserError for an unknown model."""
    tags = read_tags()
    if model:
        check_model(tags, model)
    models = [model] if model else sorted({tag.model for tag in tags.tags})
    events = [dated for name in models for dated in events_of(tags.tags, name)]
    return [event for _, event in sorted(events, key=lambda dated: dated[0], reverse=True)]


def overview() -> tuple[list[Summary], list[str]]:
    """Return a summary of each model that has versions, and warnings in words.

    A warning names a tag that cannot be read, a champion without a version, or a shallow clone.
    """
    tags = read_tags()
    models = models_of(tags)
    summaries = [summary_of(tags.tags, model) for model in models if versions_of(tags.tags, model)]
    found = [f"the tag {name} is ignored: {reason}." for name, reason in tags.odd.items() if model_in(name) in models]
    found += [summary.fault for summary in summaries if summary.fault]
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        found.append("this clone is shallow, so tags may be missing. Run `git fetch --unshallow --tags`.")
    return summaries, found


def find_version(model: str, version: str) -> Version:
    """Return a version; raises UserError, with the similar names, for an unknown one."""
    return version_in(read_tags(), model, version)


def register(model: str, commit: str, message: str, facts: Mapping[str, Any] | None = None) -> Version:
    """Make a commit a version of `model`; it returns the version that the commit has already, if any.

    Args:
        model: a name below `models` in params.yaml.
        commit: anything that names a commit of this repository.
        message: why.
        facts: what else the tag is to hold; values that JSON knows.

    Raises:
        UserError: unknown model or commit; a commit without what a version needs; git does not know who the user is, or
            refuses the tag.
    """
    refuse_unknown_writer()
    try:
        commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}").strip()
    except GitError:
        raise UserError(f"there is no commit {shortened(repr(commit))} in this repository.") from None
    with registry_lock():
        for _ in range(TRIES):
            tags = read_tags()
            check_model(tags, model)
            if known := version_at(versions_of(tags.tags, model), commit):
                return known
            version = next_version(tags, model)
            check_commit(model, commit, f"{model}@{version}")
            text = message_of(message, {**(facts or {}), "action": "register", "version": version})
            if write_unless_taken(ACTIONS["register"].format(model, version), commit, text, earliest(tags.tags, model)):
                return find_version(model, version)
    raise UserError(f"other programs keep registering versions of {model}: stop them.")


def promote(
    model: str, version: str, message: str, *, expected: Expected = "any", facts: Mapping[str, Any] | None = None
) -> Event:
    """Make a version the champion of its model. If it is the champion already, nothing changes.

    Args:
        model: a model that has versions.
        version: the version, such as v0.0.3.
        message: why.
        expected: the champion that the decision was made against, None for none; "any" promotes whatever it is.
        facts: what else the tag is to hold, such as verdict and metrics; values that JSON knows.

    Returns: the promotion, or the earlier one by which the version is the champion.

    Raises:
        UserError: an unknown version; one whose commit or files are incomplete; another champion than expected; git
            does not know who the user is, or refuses the tag. Then nothing has changed.
    """
    return assign(find_version(model, version), message, expected, {**(facts or {}), "action": "promote"})


def rollback(model: str, version: str | None, message: str, *, expected: Expected = "any") -> Event:
    """Make an earlier champion the champion again.

    Without a version it is the one before the present champion, where a rollback takes back all promotions after the
    version that it returns to: after the promotions of 1, 2 and 3, a first rollback returns to 2, a second one to 1. To
    have version 3 again, promote it.

    Args:
        model: a model that has a champion.
        version: an earlier champion, or None.
        message: why.
        expected: as in `promote`.

    Returns: the rollback, or the earlier event by which the version is the champion.

    Raises:
        UserError: there is no earlier champion, or that version was none; otherwise as `promote`.
    """
    tags = read_tags()
    check_model(tags, model)
    if version:
        target = version_in(tags, model, version)
        if target.commit not in {tag.commit for tag in assignments_of(tags.tags, model)}:
            raise UserError(f"{target.name} was never the champion. To make it the champion, promote it.")
    else:
        target = previous_champion(tags.tags, model)
    if expected == "any":  # not one that another command promotes meanwhile
        with suppress(UserError):
            expected = champion_of(tags.tags, model)
    return assign(target, message, expected, {"action": "rollback"})


def export_version(version: Version, folder: Path) -> None:
    """Copy artifacts/MODEL of a version into `folder`, which appears whole or not at all.

    The files come from DVC's cache or its remote. Raises UserError if `folder` exists, or if a file is in neither.
    """
    from orchestration.dvc.version_files import export_files

    export_files(version.name, version.commit, paths.artifacts_folder(version.model), folder)


def split_name(text: str) -> tuple[str, str]:
    """Return model and version of MODEL@VERSION; raises UserError for anything else."""
    model, _, version = text.partition("@")
    if not (model and version):
        raise UserError(
            f"{shortened(repr(text))} names no version: give MODEL@VERSION, such as iris_mlp@{FIRST_VERSION}."
        )
    return model, version


def assign(target: Version, message: str, expected: Expected, facts: Mapping[str, Any]) -> Event:
    """Make `target` the champion, unless another one than `expected` is it by now; see `promote`."""
    refuse_unknown_writer()
    check_commit(target.model, target.commit, target.name)
    check_files(target)
    with registry_lock():
        for _ in range(TRIES):
            tags = read_tags()
            known = versions_of(tags.tags, target.model)
            standing = standing_of(tags.tags, target.model)
            if standing and standing[-1].commit == target.commit:
                return event_of(known, standing[-1])
            refuse_unexpected(tags.tags, target.model, expected)
            previous = version_at(known, standing[-1].commit) if standing else None
            name = ACTIONS["assign"].format(target.model, STAGE, next_counter(tags, target.model))
            about = {**facts, "version": target.version, "previous": previous.version if previous else None}
            if write_unless_taken(name, target.commit, message_of(message, about), earliest(tags.tags, target.model)):
                return next(event_of(known, tag) for tag in read_tags().tags if tag.name == name)
    raise UserError(f"other programs keep promoting versions of {target.model}: stop them.")


def check_files(version: Version) -> None:
    """Raise UserError unless DVC can get the version's files: a champion without them would be of no use."""
    with tempfile.TemporaryDirectory(prefix="heaviside-") as folder:
        export_version(version, Path(folder) / "version")


def write_unless_taken(name: str, commit: str, text: str, date: int) -> bool:
    """Create a tag; return False if another program has created it since it was found to be free."""
    try:
        write_tag(name, commit, text, date)
    except GitError:
        if name in read_tags().taken:
            return False
        raise
    return True


def refuse_unexpected(tags: list[Tag], model: str, expected: Expected) -> None:
    """Raise UserError if the champion is another one than `expected`."""
    if expected == "any":
        return
    standing = standing_of(tags, model)
    if (standing[-1].commit if standing else None) == (expected.commit if expected else None):
        return
    was = expected.name if expected else "none"
    now = event_of(versions_of(tags, model), standing[-1]) if standing else None
    told = (
        f"{now.version or now.commit} ({now.event} by {now.author}, {now.time:%Y-%m-%d %H:%M:%S} UTC)"
        if now
        else "none"
    )
    raise UserError(
        f"the champion of {model} is {told} by now; the decision was made against {was}. Nothing has changed. Look at "
        f"`python -m flows.registry history {model}` and decide anew."
    )


def check_commit(model: str, commit: str, name: str) -> None:
    """Raise UserError unless a commit holds what a version needs.

    Args:
        model: the model.
        commit: its hash.
        name: the version, for the message.
    """
    needed = ["dvc.lock", str(paths.PARAMS), str(paths.artifacts_folder(model) / "metrics.json")]
    held = git("ls-tree", "-z", "--name-only", commit, "--", *needed).split("\0")
    missing = [file for file in needed if file not in held]
    output = f"path: {paths.artifacts_folder(model) / 'saved_model'}\n"
    if not missing and output not in git("show", f"{commit}:dvc.lock"):
        missing = [f"train@{model} in dvc.lock"]
    if missing:
        raise UserError(
            f"{name} is commit {commit[:7]}, which has no {' and no '.join(missing)}: it holds no trained {model}. "
            "Choose a commit made after `make pipeline`, with all that git tracks."
        )
