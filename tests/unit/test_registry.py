"""The registry: versions and champions in git's tags, as GTO and DVC read them, whatever a person does to them."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from orchestration import registry, registry_tags
from orchestration.registry_tags import message_of, parse_name, read_message
from runtime.errors import UserError
from tests.support.registries import AUTHOR, champion_of_dvc, champion_of_gto, commit_of, make_registry, run_git
from tests.support.workspaces import ROOT

MODEL = "iris_mlp"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_registry(tmp_path_factory.mktemp("registry") / "made", 4)


@pytest.fixture
def repository(made, tmp_path, monkeypatch) -> Path:
    """A repository of four commits without versions, which is also the current directory."""
    folder = tmp_path / "a repository"
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    for name, value in AUTHOR.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(registry, "check_files", lambda version: None)  # DVC has none of this repository
    return folder


@pytest.fixture
def three(repository) -> Path:
    """The same with three versions."""
    for number in (1, 2, 3):
        registry.register(MODEL, commit_of(repository, number), "a version")
    return repository


def promoted(*numbers: int) -> None:
    for number in numbers:
        registry.promote(MODEL, f"v0.0.{number}", "better")


def champion() -> str | None:
    found = registry.champion(MODEL)
    return found.version if found else None


def tags() -> str:
    return run_git(Path(), "for-each-ref", "refs/tags")


def test_a_version_says_who_made_it_when_why_and_from_what(repository):
    commit = commit_of(repository, 2)
    made = registry.register(MODEL, commit[:9], "the first one", {"verdict": "better", "rmse": 0.5})
    assert made == registry.versions(MODEL)[0]
    assert (made.name, made.commit, made.author) == ("iris_mlp@v0.0.1", commit, "Ada")
    assert (made.message, made.facts) == ("the first one", {"verdict": "better", "rmse": 0.5})
    assert abs(made.time.timestamp() - time.time()) < 100
    assert registry.champion(MODEL) is None


def test_a_commit_is_one_version_however_often_it_is_registered(three):
    before = tags()
    assert registry.register(MODEL, commit_of(three, 2), "again").version == "v0.0.2"
    assert tags() == before
    assert registry.register(MODEL, commit_of(three, 4), "another").version == "v0.0.4"
    assert registry.register("linear_neuron", commit_of(three, 4), "another model").version == "v0.0.1"


def test_quick_promotions_leave_the_same_champion_for_us_gto_and_dvc(three):
    promoted(1, 2, 1, 3, 1, 2, 3, 1, 3, 2, 1)  # the eleventh tag comes before the second by its name
    assert champion() == champion_of_gto(MODEL) == "v0.0.1"
    assert champion_of_dvc(MODEL) == commit_of(three, 1)
    assert [event.tag for event in registry.history(MODEL) if event.event == "promotion"] == [
        f"{MODEL}#champion#{number}" for number in range(11, 0, -1)
    ]


def test_a_promotion_after_one_dated_in_the_future_still_is_the_last_for_gto(three):
    promoted(1)
    later = f"@{int(time.time()) + 9999} +0000"
    run_git(
        three,
        "tag",
        "-a",
        "-m",
        "a fast clock",
        "iris_mlp#champion#2",
        commit_of(three, 2),
        GIT_COMMITTER_DATE=later,
    )
    promoted(3)
    assert champion() == champion_of_gto(MODEL) == "v0.0.3"
    assert [event.version for event in registry.history(MODEL) if event.event == "promotion"] == [
        "v0.0.3",
        "v0.0.2",
        "v0.0.1",
    ]


def test_a_rollback_goes_back_one_promotion_and_the_next_one_another(three):
    promoted(1, 2, 3)
    assert registry.rollback(MODEL, None, "worse in use").version == champion() == "v0.0.2"
    assert registry.rollback(MODEL, None, "still worse").version == champion() == "v0.0.1"
    with pytest.raises(UserError, match=r"no earlier champion to go back to: iris_mlp@v0.0.1 is its first champion"):
        registry.rollback(MODEL, None, "on")
    promoted(3)
    assert registry.rollback(MODEL, None, "no").version == champion() == champion_of_gto(MODEL) == "v0.0.1"
    kinds = [event.event for event in registry.history(MODEL)]
    assert kinds == ["rollback", "promotion", "rollback", "rollback", *["promotion"] * 3, *["registration"] * 3]


def test_a_rollback_to_a_named_version_takes_back_what_came_after_it(three):
    promoted(1, 2, 3)
    event = registry.rollback(MODEL, "v0.0.1", "both were worse")
    assert (event.event, event.version, event.facts["previous"]) == ("rollback", "v0.0.1", "v0.0.3")
    with pytest.raises(UserError, match="no earlier champion"):
        registry.rollback(MODEL, None, "on")
    assert registry.rollback(MODEL, "v0.0.3", "it was fine").version == champion() == "v0.0.3"


def test_a_rollback_needs_an_earlier_champion(three):
    with pytest.raises(UserError, match="no earlier champion to go back to: it has no champion"):
        registry.rollback(MODEL, None, "why")
    promoted(1)
    with pytest.raises(UserError, match=r"iris_mlp@v0.0.2 was never the champion. To make it the champion, promote it"):
        registry.rollback(MODEL, "v0.0.2", "why")
    assert champion() == "v0.0.1"


def test_promoting_the_champion_again_changes_nothing(three):
    promoted(1, 2)
    before = tags()
    promoted(2)
    registry.rollback(MODEL, "v0.0.2", "to itself")
    assert tags() == before


def test_of_two_decisions_against_the_same_champion_the_second_is_refused(three):
    promoted(1)
    first = registry.champion(MODEL)
    registry.promote(MODEL, "v0.0.2", "better", expected=first)
    for decide in (
        lambda: registry.promote(MODEL, "v0.0.3", "better", expected=first),
        lambda: registry.promote(MODEL, "v0.0.3", "the first one", expected=None),
        lambda: registry.rollback(MODEL, "v0.0.1", "worse", expected=registry.find_version(MODEL, "v0.0.3")),
    ):
        with pytest.raises(
            UserError, match=r"the champion of iris_mlp is v0.0.2 \(promotion by Ada, .* Nothing has chan"
        ):
            decide()
    assert champion() == "v0.0.2"
    assert registry.rollback(MODEL, None, "worse", expected=registry.champion(MODEL)).version == "v0.0.1"


def taken_by_another(monkeypatch, folder: Path) -> None:
    """Let GTO promote version 2 just before the next tag is written, without our lock."""
    write = registry.write_tag

    def late(name: str, commit: str, text: str, date: int) -> None:
        monkeypatch.setattr(registry, "write_tag", write)
        from gto import api

        api.assign(".", MODEL, "champion", version="v0.0.2", force=True)
        write(name, commit, text, date)

    monkeypatch.setattr(registry, "write_tag", late)


def test_a_promotion_that_another_program_forestalls_is_refused_or_follows_it(three, monkeypatch):
    promoted(1)
    taken_by_another(monkeypatch, three)
    with pytest.raises(UserError, match=r"is v0.0.2 .* by now; the decision was made against iris_mlp@v0.0.1"):
        registry.promote(MODEL, "v0.0.3", "better", expected=registry.champion(MODEL))
    assert champion() == "v0.0.2"
    promoted(1)
    taken_by_another(monkeypatch, three)
    assert registry.promote(MODEL, "v0.0.3", "better").tag == "iris_mlp#champion#5"
    assert champion() == champion_of_gto(MODEL) == "v0.0.3"


@pytest.mark.parametrize(
    ("model", "version", "told"),
    [
        (
            "iris_mlp",
            "v0.0.4",
            r"iris_mlp has no version v0\.0\.4\. Did you mean v0\.0\.3\? Its versions, the newest first: v0",
        ),
        ("iris_mlp", "0.0.1", r"Did you mean v0\.0\.1\?"),
        ("irs_mlp", "v0.0.1", "unknown model 'irs_mlp'. Did you mean 'iris_mlp'?"),
        ("linear_neuron", "v0.0.1", r"linear_neuron has no version v0.0.1. Its versions, the newest first: \(none\)"),
    ],
)
def test_an_unknown_model_or_version_is_named_with_the_similar_ones(three, model, version, told):
    before = tags()
    with pytest.raises(UserError, match=told):
        registry.promote(model, version, "why")
    with pytest.raises(UserError, match=told):
        registry.rollback(model, version, "why")
    assert tags() == before


@pytest.mark.parametrize("text", ["iris_mlp", "@v0.0.1", "iris_mlp@", ""])
def test_what_is_no_model_with_a_version_is_refused(text):
    with pytest.raises(UserError, match="names no version: give MODEL@VERSION"):
        registry.split_name(text)


@pytest.mark.parametrize("file", ["dvc.lock", "params.yaml", "artifacts/iris_mlp/metrics.json"])
def test_a_commit_without_what_a_version_needs_is_none(three, file):
    run_git(three, "rm", "--quiet", file)
    run_git(three, "commit", "--quiet", "-m", "less")
    (three / file).parent.mkdir(parents=True, exist_ok=True)
    (three / file).write_text("models: {iris_mlp: {}}")  # not committed
    before = tags()
    with pytest.raises(UserError, match=f"which has no {file}: it holds no trained iris_mlp"):
        registry.register(MODEL, "HEAD", "why")
    assert tags() == before
    run_git(three, "tag", "-a", "-m", "by hand", "iris_mlp@v0.0.9", "HEAD")
    with pytest.raises(UserError, match=f"iris_mlp@v0.0.9 is commit .* which has no {file}"):
        registry.promote(MODEL, "v0.0.9", "why")
    assert champion() is None


def test_a_commit_in_which_the_model_was_not_trained_is_no_version(three):
    (three / "dvc.lock").write_text("    - path: artifacts/linear_neuron/saved_model\n")
    run_git(three, "commit", "--quiet", "--all", "-m", "less")
    with pytest.raises(UserError, match=r"has no train@iris_mlp in dvc.lock"):
        registry.register(MODEL, "HEAD", "why")


@pytest.mark.parametrize("commit", ["no-such-branch", "0" * 40, "--all", "HEAD:dvc.lock", ""])
def test_an_unknown_commit_is_named(three, commit):
    with pytest.raises(UserError, match="there is no commit"):
        registry.register(MODEL, commit, "why")


def test_without_an_identity_nothing_is_written(three, monkeypatch, tmp_path):
    for name in AUTHOR:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    run_git(three, "config", "user.useConfigOnly", "true")
    before = tags()
    for change in (
        lambda: registry.promote(MODEL, "v0.0.1", "why"),
        lambda: registry.register(MODEL, commit_of(three, 4), "why"),
    ):
        with pytest.raises(UserError, match=r"git does not know who you are.*git config user.name NAME"):
            change()
    assert tags() == before


def test_without_git_there_is_no_registry(repository):
    shutil.rmtree(".git")
    for ask in (registry.overview, lambda: registry.champion(MODEL), lambda: registry.promote(MODEL, "v0.0.1", "why")):
        with pytest.raises(UserError, match=r"is not in a git repository.*no versions and no champion. Run `git init`"):
            ask()


def test_without_the_git_command_a_message_says_so(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="git is not installed"):
        registry.overview()


def test_a_folder_within_a_repository_has_no_registry(repository, monkeypatch):
    monkeypatch.chdir("artifacts")
    with pytest.raises(UserError, match="the registry needs the repository's root"):
        registry.overview()


def test_a_repository_without_commits_has_no_versions(tmp_path, monkeypatch):
    run_git(tmp_path, "init", "--quiet")
    monkeypatch.chdir(tmp_path)
    assert registry.overview() == ([], [])
    with pytest.raises(UserError, match="there is no commit 'HEAD'"):
        registry.register(MODEL, "HEAD", "why")


def test_a_shallow_clone_is_read_with_a_warning_and_not_changed(three, tmp_path, monkeypatch):
    promoted(1)
    run_git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{three}", "shallow")
    monkeypatch.chdir(tmp_path / "shallow")
    assert "this clone is shallow" in registry.overview()[1][0]
    with pytest.raises(UserError, match=r"shallow.*git fetch --unshallow --tags"):
        registry.register(MODEL, "HEAD", "why")
    run_git(Path(), "fetch", "--quiet", "--unshallow", "--tags")
    assert champion() == "v0.0.1"


def test_a_detached_head_and_a_dirty_tree_stay_as_they_are(three):
    run_git(three, "checkout", "--quiet", "--detach", commit_of(three, 1))
    (three / "params.yaml").write_text("models: {iris_mlp: {}}  # edited\n")
    (three / "new").touch()
    run_git(three, "add", "params.yaml")
    before = run_git(three, "status", "--porcelain", "--branch"), run_git(three, "rev-parse", "HEAD")
    promoted(1, 2)
    registry.rollback(MODEL, None, "worse")
    assert (run_git(three, "status", "--porcelain", "--branch"), run_git(three, "rev-parse", "HEAD")) == before
    assert champion() == "v0.0.1"


def test_a_worktree_shares_the_registry_of_its_repository(three, tmp_path, monkeypatch):
    run_git(three, "worktree", "add", "--quiet", "--detach", str(tmp_path / "night"), commit_of(three, 4))
    monkeypatch.chdir(tmp_path / "night")
    assert registry.register(MODEL, "HEAD", "the night's").version == "v0.0.4"
    promoted(4)
    monkeypatch.chdir(three)
    assert champion() == "v0.0.4"


def test_tags_that_a_person_made_with_odd_names_are_ignored_and_named(three):
    promoted(1)
    for name in ("iris_mlp@v1.0", "iris_mlp#champion#x", "v2.0", "iris_mlp@v1", "some#champion#1"):
        run_git(three, "tag", "-a", "-m", "by hand", name, commit_of(three, 3))
    run_git(three, "tag", "iris_mlp@v0.0.4", commit_of(three, 4))  # not annotated
    run_git(three, "tag", "iris_mlp#champion#2", commit_of(three, 4))
    assert champion() == champion_of_gto(MODEL) == "v0.0.1"
    told = "\n".join(registry.overview()[1])
    for name in ("iris_mlp@v1.0", "iris_mlp#champion#x", "iris_mlp@v1", "iris_mlp@v0.0.4", "iris_mlp#champion#2"):
        assert f"the tag {name} is ignored" in told
    assert "v2.0" not in told
    assert "some" not in told
    assert registry.register(MODEL, commit_of(three, 4), "after it").version == "v0.0.5"
    assert registry.promote(MODEL, "v0.0.5", "after it").tag == "iris_mlp#champion#3"


def test_other_stages_and_models_with_a_longer_name_count_for_themselves(three):
    (three / "params.yaml").write_text("models: {iris_mlp: {}, iris_mlp_2: {}}")
    promoted(1)
    run_git(three, "tag", "-a", "-m", "x", "iris_mlp#staging#7", commit_of(three, 3))
    run_git(three, "tag", "-a", "-m", "x", "iris_mlp_2@v3.0.0", commit_of(three, 3))
    run_git(three, "tag", "-a", "-m", "x", "iris_mlp_2#champion#9", commit_of(three, 3))
    assert champion() == "v0.0.1"
    assert registry.champion("iris_mlp_2").version == "v3.0.0"
    assert registry.promote(MODEL, "v0.0.2", "better").tag == "iris_mlp#champion#8"  # as GTO counts


def test_a_champion_whose_version_was_deleted_is_named_and_a_promotion_mends_it(three):
    promoted(1, 2)
    run_git(three, "tag", "--delete", "iris_mlp@v0.0.2")
    with pytest.raises(UserError, match=r"the tag iris_mlp#champion#2 marks commit .* no tag iris_mlp@vX.Y.Z is there"):
        registry.champion(MODEL)
    [summary], [warning] = registry.overview()
    assert summary.champion is None
    assert "iris_mlp#champion#2" in warning
    promoted(3)
    assert champion() == champion_of_gto(MODEL) == "v0.0.3"
    assert registry.rollback(MODEL, None, "worse").version == "v0.0.1"


def test_what_gto_itself_withdraws_or_deregisters_counts(three):
    promoted(1, 2)
    later = f"@{int(time.time()) + 60} +0000"  # as `gto unassign` and `gto deregister` write them, a minute later
    run_git(three, "tag", "-a", "-m", "x", "iris_mlp#champion!#3", commit_of(three, 2), GIT_COMMITTER_DATE=later)
    assert champion() == champion_of_gto(MODEL) == "v0.0.1"
    run_git(three, "tag", "-a", "-m", "x", "iris_mlp@v0.0.3!", commit_of(three, 3), GIT_COMMITTER_DATE=later)
    assert [version.version for version in registry.versions(MODEL)] == ["v0.0.1", "v0.0.2"]
    with pytest.raises(UserError, match=r"has no version v0.0.3"):
        registry.promote(MODEL, "v0.0.3", "why")
    assert registry.register(MODEL, commit_of(three, 4), "new").version == "v0.0.4"


def test_a_lock_that_a_killed_git_left_is_removed(three, monkeypatch):
    monkeypatch.setattr(registry_tags, "STALE_SECONDS", 0.2)
    locks = [three / ".git/refs/tags" / name for name in ("iris_mlp#champion#1.lock", "iris_mlp@v0.0.4.lock")]
    for lock in locks:
        lock.touch()
    promoted(1)
    registry.register(MODEL, commit_of(three, 4), "new")
    assert champion() == "v0.0.1"
    assert not any(lock.exists() for lock in locks)


def test_a_lock_that_a_running_git_may_hold_is_named(three, monkeypatch, tmp_path):
    monkeypatch.setattr(registry_tags, "STALE_SECONDS", 0.2)
    lock = three / ".git/refs/tags/iris_mlp#champion#1.lock"
    lock.touch()
    shutil.copy(shutil.which("sleep"), tmp_path / "git")
    with subprocess.Popen([tmp_path / "git", "600"], cwd=three) as running:
        try:
            with pytest.raises(UserError, match=rf"champion#1.lock: process {running.pid} may be writing this tag"):
                promoted(1)
        finally:
            running.kill()
    assert lock.exists()
    promoted(1)
    assert champion() == "v0.0.1"


def test_a_fault_in_params_yaml_does_not_stand_in_a_rollbacks_way(three):
    promoted(1, 2)
    (three / "params.yaml").write_text("models: [")
    assert registry.rollback(MODEL, None, "worse").version == "v0.0.1"


def test_a_name_that_gto_does_not_take_is_refused(three):
    (three / "params.yaml").write_text("models: {iris_: {}}")
    with pytest.raises(UserError, match="takes no name that ends with _"):
        registry.register("iris_", "HEAD", "why")


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.dictionaries(st.text(), st.floats(allow_nan=False)),
)
@example('{"action": 1}', {})
@example("# no comment", {"verdict": 1.0})
def test_a_tags_message_gives_back_text_and_facts(text, facts):
    assert read_message(message_of(text, facts)) == (text.strip(), facts)


def test_the_message_comes_back_from_git(three):
    why = "# better\nüber Nacht\n{not json}"
    registry.promote(MODEL, "v0.0.1", why, facts={"verdict": "besser als früher"})
    [event, *_] = registry.history(MODEL)
    assert (event.message, event.facts["verdict"]) == (why, "besser als früher")


def test_every_model_of_params_yaml_is_an_artifact_that_gto_can_name():
    models = YAML(typ="safe").load(ROOT / "params.yaml")["models"]
    listed = YAML(typ="safe").load(ROOT / "dvc.yaml")["artifacts"]
    assert listed == {name: {"path": f"artifacts/{name}"} for name in models}
    for name in models:
        assert parse_name(f"{name}@v0.0.1")["model"] == name
        assert parse_name(f"{name}#champion#1")["model"] == name
