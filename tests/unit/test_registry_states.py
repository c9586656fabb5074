"""Whatever sequence of commands and crashes, a model has one champion, and GTO and DVC agree on it."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from orchestration import registry, registry_tags
from orchestration.registry_state import next_counter, next_version
from orchestration.registry_tags import message_of, read_tags
from runtime.errors import UserError
from tests.support.registries import AUTHOR, champion_of_dvc, champion_of_gto, commit_of, make_registry, run_git

MODEL = "iris_mlp"
COMMITS = 4


class Registry(RuleBasedStateMachine):
    """The registry of one model, and what it should hold.

    registered: the commit of each version. reigns: the champions, as far as no rollback has taken them back.
    """

    repository: Path  # with the commits; each run of the machine works in a copy

    @initialize(promoted=st.lists(st.sampled_from(["v0.0.1", "v0.0.2", "v0.0.3"]), max_size=4))
    def begin(self, promoted):
        self.folder = Path(tempfile.mkdtemp()) / "repository"
        shutil.copytree(self.repository, self.folder)
        os.chdir(self.folder)
        self.commits = [commit_of(self.folder, number) for number in range(1, COMMITS + 1)]
        self.registered: dict[str, str] = {}
        for number in (2, 0, 1):
            self.register_commit(number)
        self.reigns: list[str] = []
        self.seen: list[registry.Event] = []
        for version in promoted:
            self.promoted(version)

    @rule(number=st.integers(0, COMMITS - 1))
    def register(self, number):
        self.register_commit(number)

    def register_commit(self, number):
        version = registry.register(MODEL, self.commits[number], "a version")
        assert self.registered.setdefault(version.version, version.commit) == self.commits[number]

    @rule(data=st.data())
    def promote(self, data):
        self.promoted(data.draw(st.sampled_from([*self.registered])))

    @rule(data=st.data())
    def promote_several_within_a_second(self, data):
        for version in data.draw(st.lists(st.sampled_from([*self.registered]), min_size=2, max_size=4)):
            self.promoted(version)

    def promoted(self, version):
        event = registry.promote(MODEL, version, "better", expected=registry.champion(MODEL))
        assert event.version == version
        if self.reigns[-1:] != [version]:
            self.reigns.append(version)

    @rule(times=st.integers(1, 3))
    def roll_back(self, times):
        for _ in range(times):
            self.rolled_back()

    def rolled_back(self):
        earlier = [version for version in self.reigns if version != self.reigns[-1]]
        if not earlier:
            with pytest.raises(UserError, match="no earlier champion"):
                registry.rollback(MODEL, None, "worse")
            return
        while self.reigns[-1] == registry.champion(MODEL).version:
            self.reigns.pop()
        assert registry.rollback(MODEL, None, "worse").version == self.reigns[-1]

    @precondition(lambda self: self.reigns)
    @rule(data=st.data())
    def roll_back_to(self, data):
        version = data.draw(st.sampled_from([*self.registered]))
        if any(version == event.version for event in self.seen if event.event != "registration"):
            champion = registry.champion(MODEL).version
            registry.rollback(MODEL, version, "worse")
            if version == champion:
                return
            if version in self.reigns:
                while self.reigns[-1] != version:
                    self.reigns.pop()
            else:
                self.reigns.append(version)
        else:
            with pytest.raises(UserError, match="was never the champion"):
                registry.rollback(MODEL, version, "worse")

    @rule()
    def kill_git_while_it_writes_the_next_tags(self):
        """Leave what it leaves then: the tag's object, which nothing names, and the lock of the tag's name."""
        tags = read_tags()
        names = f"{MODEL}@{next_version(tags, MODEL)}", f"{MODEL}#champion#{next_counter(tags, MODEL)}"
        for name in names:
            run_git(self.folder, "tag", "--annotate", "-m", message_of("killed", {}), "killed", self.commits[0])
            run_git(self.folder, "tag", "--delete", "killed")
            (self.folder / ".git/refs/tags" / f"{name}.lock").touch()

    @precondition(lambda self: self.reigns)
    @rule(data=st.data())
    def promote_against_a_champion_of_yesterday(self, data):
        version, expected = data.draw(st.permutations([*self.registered]))[:2]
        if self.reigns[-1] not in (version, expected):
            with pytest.raises(UserError, match="Nothing has changed"):
                registry.promote(MODEL, version, "better", expected=registry.find_version(MODEL, expected))

    @invariant()
    def a_model_has_one_champion_which_is_a_version(self):
        champion = registry.champion(MODEL)
        assert (champion.version if champion else None) == (self.reigns[-1] if self.reigns else None)
        if champion:
            assert self.registered[champion.version] == champion.commit
            assert champion_of_gto(MODEL) == champion.version
            assert champion_of_dvc(MODEL) == champion.commit

    @invariant()
    def history_only_grows(self):
        events = registry.history(MODEL)[::-1]
        kept = {event.tag: event for event in events}
        assert all(kept.get(event.tag) == event for event in self.seen)
        staged = [event for event in events if event.event != "registration"]
        assert [event.tag for event in staged] == [f"{MODEL}#champion#{number + 1}" for number in range(len(staged))]
        self.seen = events

    def teardown(self):
        os.chdir(self.repository)
        with suppress(AttributeError):
            shutil.rmtree(self.folder.parent)


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in AUTHOR.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(registry, "check_files", lambda version: None)  # DVC has none of this repository
    monkeypatch.setattr(registry_tags, "STALE_SECONDS", 0)
    return make_registry(tmp_path / "repository", COMMITS)


def test_a_model_has_one_champion_on_which_all_agree_whatever_happens(repository, monkeypatch):
    monkeypatch.setattr(Registry, "repository", repository, raising=False)
    few = settings(max_examples=max(5, settings().max_examples // 5), stateful_step_count=8)
    run_state_machine_as_test(Registry, settings=few)
