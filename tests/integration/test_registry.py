"""The registry's command over git and DVC: whatever is killed when, and after a cleanup, the champion is there."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestration import registry
from runtime.errors import UserError
from tests.support.processes import wait_for
from tests.support.registries import AUTHOR, champion_of_gto, commit_of, make_registry
from tests.support.workspaces import DVC, build_once, clone, commit, contents

MODEL = "iris_mlp"
REGISTRY = [sys.executable, "-m", "flows.registry"]


REGISTER = "import sys; from orchestration import registry; registry.register('iris_mlp', 'HEAD', sys.argv[1])"


@pytest.fixture(scope="session")
def three_versions(shared, settings, two_models) -> Path:
    """A repository with three versions of iris_mlp, which no test changes; the third is the second's model."""

    def build(folder: Path) -> None:
        clone(two_models, folder)
        register = [sys.executable, "-c", REGISTER]
        subprocess.run([*register, "the first one"], cwd=folder, env=settings, check=True)
        for name, content in (("model.keras", "another network"), ("metrics.json", '{"epochs": 2}')):
            file = folder / "artifacts/iris_mlp" / name
            file.unlink()  # it may be a link into DVC's cache
            file.write_text(content)
        made = [*DVC, "commit", "--force", "--quiet", "train@iris_mlp"]
        subprocess.run(made, cwd=folder, env=settings, check=True)
        commit(folder, settings)
        subprocess.run([*register, "two epochs"], cwd=folder, env=settings, check=True)
        nothing = ["git", "commit", "--quiet", "--allow-empty", "-m", "nothing new"]
        for words in (nothing, [*register, "nothing new"]):
            subprocess.run(words, cwd=folder, env=settings, check=True)

    return build_once(shared / "three versions", build)


@pytest.fixture
def repository(three_versions, tmp_path, settings, monkeypatch) -> Path:
    """A copy of it, which is also the current directory."""
    monkeypatch.chdir(clone(three_versions, tmp_path / "three versions"))
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return Path.cwd()


def run(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.rotates
def test_promoting_rolling_back_and_cleaning_up(repository, tmp_path):
    registry.promote(MODEL, "v0.0.1", "the first one")
    done = run(*REGISTRY, "promote", "iris_mlp@v0.0.2", "--message", "v0.0.2 is better")
    assert done.returncode == 0, done.stderr
    assert "iris_mlp@v0.0.2 is the champion" in done.stdout
    [listed] = json.loads(run(*REGISTRY, "list", "--json").stdout)
    assert (listed["model"], listed["champion"], listed["newest"]) == (MODEL, "v0.0.2", "v0.0.3")
    [*_, event] = json.loads(run(*REGISTRY, "history", MODEL, "--json").stdout)
    assert (event["event"], event["version"], event["message"]) == ("registration", "v0.0.1", "the first one")
    assert "v0.0.2 is better" in run(*REGISTRY, "history").stdout
    refused = run(*REGISTRY, "promote", "iris_mlp@v0.0.4")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: iris_mlp has no version v0.0.4. Did you mean")

    second = contents(Path("artifacts/iris_mlp"))
    cleaned = run(*DVC, "gc", "--workspace", "--all-tags", "--all-experiments", "--force")
    assert cleaned.returncode == 0, cleaned.stderr
    back = run(*REGISTRY, "rollback", "iris_mlp", "--message", "worse in use")
    assert back.returncode == 0, back.stderr
    got = run(*DVC, "artifacts", "get", ".", MODEL, "--stage", "champion", "--out", str(tmp_path / "got"))
    assert got.returncode == 0, got.stderr
    registry.export_version(registry.champion(MODEL), tmp_path / "exported")
    first = contents_below(tmp_path / "exported")
    assert json.loads(first["metrics.json"])["epochs"] == 1
    assert {"saved_model/saved_model.pb", "run.json", "model.keras"} <= first.keys()
    assert first == contents_below(tmp_path / "got")
    assert contents(Path("artifacts/iris_mlp")) == second  # the workspace stays as it is
    assert run("git", "status", "--porcelain").stdout == ""

    run(*DVC, "gc", "--workspace", "--force")  # forgets what the tags need
    registry.promote(MODEL, "v0.0.2", "again")
    gone = run(*REGISTRY, "rollback", "iris_mlp")
    assert gone.returncode == 1
    assert "a file of artifacts/iris_mlp is neither in DVC's cache nor in its remote" in gone.stderr
    assert "Traceback" not in gone.stderr
    assert registry.champion(MODEL).version == "v0.0.2"
    with pytest.raises(UserError, match="is neither in DVC's cache"):
        registry.export_version(registry.find_version(MODEL, "v0.0.1"), tmp_path / "parts")
    assert not [*tmp_path.glob("*parts*")]


def contents_below(folder: Path) -> dict[str, bytes]:
    return {str(Path(name).relative_to(folder)): data for name, data in contents(folder).items()}


def test_of_two_promotions_at_once_one_wins_and_the_other_says_so(repository, tmp_path):
    registry.promote(MODEL, "v0.0.1", "the first one")
    hook = '[ "$1" = prepared ] && [ ! -e go ] && touch held && while [ ! -e go ]; do sleep 0.1; done; exit 0'
    write_script(repository / ".git/hooks/reference-transaction", hook)

    def start(version: str) -> subprocess.Popen:
        words, environment = (
            [*REGISTRY, "promote", f"iris_mlp@{version}"],
            {**os.environ, "GIT_TRACE": str(tmp_path / version)},
        )
        return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)

    first = start("v0.0.2")
    try:
        wait_for((repository / "held").exists)
        second = start("v0.0.3")
        trace = tmp_path / "v0.0.3"
        wait_for(lambda: trace.exists() and "git show" in trace.read_text())  # after it has read the champion
    finally:
        (repository / "go").touch()
    told = second.communicate(timeout=240)[1]
    assert first.wait(timeout=240) == 0
    assert second.returncode == 1
    assert "error: the champion of iris_mlp is v0.0.2" in told
    assert "against iris_mlp@v0.0.1. Nothing has changed." in told
    assert registry.champion(MODEL).version == champion_of_gto(MODEL) == "v0.0.2"


def test_without_git_in_dvc_nothing_is_promoted(repository):
    assert run(*DVC, "config", "core.no_scm", "true").returncode == 0
    done = run(*REGISTRY, "promote", "iris_mlp@v0.0.1")
    assert done.returncode == 1
    assert "DVC works without git here (core.no_scm), and the registry needs git" in done.stderr
    assert registry.champion(MODEL) is None


def write_script(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


# A git that kills the command that called it before it does its work number $KILLED_AT.
KILLER = """echo >> "$COUNT"
[ "$(wc -l < "$COUNT")" -eq "$KILLED_AT" ] && kill -9 $PPID && exit 1
exec {git} "$@"
"""
# A hook that kills git, and the command that called it, when git has locked or written the tag.
MIDST = """[ "$1" = "$KILLED_IN" ] || exit 0
command=$(sed 's/.*) . //; s/ .*//' /proc/$PPID/stat)
kill -9 $PPID $command
"""
COMMANDS = {
    "promote": "registry.promote('iris_mlp', 'v0.0.3', 'better', expected=registry.champion('iris_mlp'))",
    "rollback": "registry.rollback('iris_mlp', 'v0.0.1', 'worse')",
    "register": "registry.register('iris_mlp', 'HEAD', 'new')",
}


@pytest.fixture
def killed(tmp_path, monkeypatch) -> Callable[..., int]:
    """Run a command in a repository whose champion is version 2, killed at some moment, and return its exit code."""
    made = make_registry(tmp_path / "made", 4)
    monkeypatch.chdir(made)
    for name, value in AUTHOR.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(registry, "check_files", lambda version: None)
    for number in (1, 2, 3):
        registry.register(MODEL, commit_of(made, number), "a version")
    for version in ("v0.0.1", "v0.0.2"):
        registry.promote(MODEL, version, "better")
    write_script(made / ".git/hooks/reference-transaction", MIDST)
    write_script(tmp_path / "bin/git", KILLER.format(git=shutil.which("git")))
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def run(command: str, **when: str) -> int:
        shutil.rmtree(tmp_path / "repository", ignore_errors=True)
        (tmp_path / "count").unlink(missing_ok=True)
        monkeypatch.chdir(clone(made, tmp_path / "repository"))
        moment = {"KILLED_AT": "0", "KILLED_IN": "", "COUNT": str(tmp_path / "count"), **when}
        child = os.fork()  # the command has nothing of this process but what it has imported
        if not child:
            code = 1
            try:
                os.environ.update({"PATH": path, **moment})
                exec(COMMANDS[command], {"registry": registry})  # noqa: S102 - our own words
                code = 0
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    return run


def check_and_repeat(command: str) -> None:
    """Expect one champion, all of history, and that the command now does its work."""
    before = registry.history(MODEL)
    assert registry.champion(MODEL).version in {"v0.0.2", "v0.0.3" if command == "promote" else "v0.0.1"}
    exec(COMMANDS[command], {"registry": registry})  # noqa: S102 - the same words as in the fork
    after = registry.history(MODEL)
    assert after[-len(before) :] == before
    assert {event.tag for event in after} >= {event.tag for event in before}
    assert not [*Path(".git/refs/tags").glob("*.lock")]
    if command == "register":
        assert registry.versions(MODEL)[-1].version == "v0.0.4"
        assert registry.champion(MODEL).version == "v0.0.2"
    else:
        expected = {"promote": "v0.0.3", "rollback": "v0.0.1"}[command]
        assert registry.champion(MODEL).version == champion_of_gto(MODEL) == expected


@pytest.mark.parametrize("command", COMMANDS)
def test_killed_before_any_work_of_git_it_leaves_one_champion_and_can_be_repeated(killed, command):
    number = 1
    while code := killed(command, KILLED_AT=str(number)):
        assert code == -9
        check_and_repeat(command)
        number += 1
    assert number > 5
    assert len([event for event in registry.history(MODEL) if event.event == "promotion"]) == (
        3 if command == "promote" else 2
    )


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("moment", ["prepared", "committed"])
def test_killed_while_git_writes_the_tag_it_leaves_one_champion_and_can_be_repeated(killed, command, moment):
    assert killed(command, KILLED_IN=moment) == -9
    assert bool([*Path(".git/refs/tags").glob("*.lock")]) == (moment == "prepared")
    Path(".git/hooks/reference-transaction").unlink()
    check_and_repeat(command)
