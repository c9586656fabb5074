"""A year of nights stays below a stated size, and what anything names is still there.

The nights are those of `retrain` without trainings: its worktree, commits, tags and DVC's cache are real, the files in
the cache are made up, as large as those of a model of the housing data and empty inside.
"""

import asyncio
import hashlib
import itertools
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from config.retention import Retention
from orchestration import registry, worktree
from orchestration.dvc import unneeded
from orchestration.git import git
from orchestration.prefect.log_files import bound_log, open_log
from orchestration.prefect.server import vacuum_environment
from orchestration.registry_tags import message_of
from orchestration.retention import DAY, clean_up
from tests.support.workspaces import MIGRATED

NIGHTS = 365
MB = 10**6
BEGIN = 1_700_000_000  # of the year
MODEL, DATA, EXPERIMENT = 2 * MB, MB, 2 * MB
LOG = 200_000  # of a night
CACHE = Path(".dvc/cache/files/md5")
CHAMPIONS = Path(".retrain/champions/m")
numbers = itertools.count()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git and DVC repository with a model `m`, which is the current directory."""
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    for role, what in itertools.product(("AUTHOR", "COMMITTER"), ("NAME", "EMAIL")):
        monkeypatch.setenv(f"GIT_{role}_{what}", "Ada")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / ".site"))
    git("init", "--quiet", "--initial-branch", "main")
    Repo.init().close()
    Path(".gitignore").write_text("/.retrain/\n/.site/\n/.prefect/\n")
    Path("params.yaml").write_text("models: {m: {}}\n")
    Path("dvc.yaml").write_text("stages: {}\n")
    name_in(Path(), put(DATA))
    save("begin")
    # Its year takes seconds, so git does not wait for two weeks until it removes what nothing reaches.
    git("config", "gc.auto", "1000")
    git("config", "gc.pruneExpire", "now")
    return tmp_path


def put(size: int, when: float = BEGIN - 400 * DAY) -> str:
    """Put a file that was made at a time into DVC's cache, and return its checksum."""
    checksum = hashlib.md5(str(next(numbers)).encode()).hexdigest()
    return write(checksum, b"", size, when)


def put_folder(*files: str, when: float = BEGIN - 400 * DAY) -> str:
    """Put a folder of files that are in DVC's cache there."""
    text = json.dumps([{"md5": file, "relpath": f"{number}"} for number, file in enumerate(files)]).encode()
    return write(f"{hashlib.md5(text).hexdigest()}.dir", text, len(text), when)


def write(checksum: str, content: bytes, size: int, when: float) -> str:
    file = CACHE / checksum[:2] / checksum[2:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    os.truncate(file, size)
    os.utime(file, (when, when))
    file.chmod(0o444)
    return checksum


def cached(checksum: str) -> bool:
    return (CACHE / checksum[:2] / checksum[2:]).exists()


def name_in(folder: Path, *checksums: str, file: str = "dvc.lock") -> None:
    """Write a file that names outputs as DVC does."""
    (folder / file).write_text(dvc_lock(checksums))


def dvc_lock(checksums: Sequence[str]) -> str:
    outs = "".join(f"    - path: out{number}\n      md5: {name}\n" for number, name in enumerate(checksums))
    return f"schema: '2.0'\nstages:\n  s:\n    outs:\n{outs}"


def save(message: str, *options: str) -> str:
    git("add", ".")
    git("commit", "--quiet", "--allow-empty", "--message", message, *options)
    return git("rev-parse", "HEAD").strip()


def add_experiment(name: str, checksum: str, when: float) -> None:
    git("fast-import", "--quiet", given=experiment(git("rev-parse", "main").strip(), name, checksum, when))


def experiment(head: str, name: str, checksum: str, when: float) -> str:
    """Return, for git to import, what `dvc exp save` leaves: a commit on the last one, and a reference."""
    return commit_of(f"refs/exps/{head[:2]}/{head[2:]}/{name}", when, dvc_lock([checksum]))


def commit_of(reference: str, when: float, lock: str) -> str:
    about = f"commit {reference}\ncommitter Ada <Ada> {int(when)} +0000\ndata 0\nfrom refs/heads/main\n"
    return f"{about}M 644 inline dvc.lock\ndata {len(lock)}\n{lock}\n"


def night_of(when: float, lock: str) -> str:
    """Return, for git to import, what `commit_worktree` leaves: a commit on the user's last one."""
    return commit_of(worktree.LAST, when, lock)


def promotion_of(number: int, when: float) -> str:
    """Return, for git to import, the tags of a promotion of what `worktree.LAST` is."""
    version = f"v0.0.{number}"
    text = message_of("better", {"version": version})
    about = f"from {worktree.LAST}\ntagger Ada <Ada> {int(when)} +0000\ndata {len(text)}\n{text}\n"
    return "".join(f"tag {name}\n{about}" for name in (f"m@{version}", f"m#champion#{number}"))


def experiments() -> list[str]:
    return git("for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps").split()


def size_of(*folders: str) -> int:
    files = (file for folder in folders for file in Path(folder).rglob("*"))
    return sum(file.lstat().st_size for file in files if file.is_file())


def live(nights: int, kept: Retention | None) -> list[str]:
    """Let nights pass, of which each third promotes a model and each has an experiment; None keeps everything.

    What nights write into git is imported at once, and `retrain` tidies up in each fifth night, because git's commands
    would take most of the test's time. Returns the checksums of what was promoted.
    """
    Path(".prefect").mkdir()
    folder = worktree.open_worktree()
    head = git("rev-parse", "main").strip()
    promoted: list[str] = []
    given = ""
    with open_log(Path(".prefect/worker.log")) as log:
        for night in range(nights):
            when = BEGIN + night * DAY
            files = [put(MODEL, when), put(DATA, when)]
            made = [put_folder(*files, when=when), put(DATA, when)]
            name_in(folder, *made)
            given += night_of(when, dvc_lock(made)) + experiment(head, f"try-{night}", put(EXPERIMENT, when), when)
            if night % 3 == 0:
                promoted += [*files, *made]
                given += promotion_of(night // 3 + 1, when)
                fetched = folder / CHAMPIONS / f"v0.0.{night // 3 + 1}" / "model"
                fetched.parent.mkdir(parents=True)
                fetched.touch()
                os.truncate(fetched, MODEL)
            for _ in range(10):
                log.write("a line of a run\n" * (LOG // 160))
                log.flush()
                if kept:
                    bound_log(Path(".prefect/worker.log"), kept.log_size)
            if night % 5 == 4:
                git("fast-import", "--quiet", "--force", given=given)
                given = ""
                if kept:
                    assert clean_up(folder, kept, when)[1] == []
    return promoted


def test_a_year_of_nights_stays_below_a_stated_size(project):
    kept = Retention()
    promoted = live(NIGHTS, kept)
    assert all(cached(checksum) for checksum in promoted)
    versions = len(range(0, NIGHTS, 3)) * (MODEL + 2 * DATA)  # never removed
    candidates = (kept.cache_days + 1) * (MODEL + 2 * DATA)
    tried = (kept.experiments + kept.cache_days + 1) * EXPERIMENT
    assert size_of(".dvc") < versions + candidates + tried + 5 * MB
    assert sorted(experiments()) == sorted(f"try-{night}" for night in range(NIGHTS - 100, NIGHTS))
    assert size_of(".prefect") <= 2 * (kept.log_size + LOG)
    champion = registry.champion("m")
    assert champion
    assert [folder.name for folder in (worktree.FOLDER / CHAMPIONS).iterdir()] == [champion.version]
    assert size_of(".retrain") < 2 * MODEL
    assert size_of(".git") < 5 * MB
    assert size_of(".") < 800 * MB


def test_without_a_bound_every_night_adds_to_it(project):
    nights = 30
    live(nights, None)
    assert size_of(".dvc") > nights * (MODEL + 2 * DATA + EXPERIMENT)
    assert len(experiments()) == nights
    assert size_of(".prefect") > nights * LOG * 0.99
    assert len([*(worktree.FOLDER / CHAMPIONS).iterdir()]) == nights / 3


def test_a_candidate_of_an_earlier_night_that_was_not_promoted_goes(project):
    candidates = [put(1), put(1), put(1)]
    for number, candidate in enumerate(candidates):
        folder = worktree.open_worktree()
        name_in(folder, candidate)
        commit = worktree.commit_worktree(folder, "Retrain: 1 candidates")
        if number == 0:
            git("fast-import", "--quiet", given=promotion_of(1, BEGIN))
    assert commit == git("rev-parse", worktree.LAST).strip()
    assert clean_up(worktree.open_worktree(), Retention(), BEGIN)[1] == []
    assert [cached(candidate) for candidate in candidates] == [True, False, True]


def test_what_anything_names_stays(project):
    folder = worktree.open_worktree()
    needed = {"last night": put(1), "the worktree": put(1)}
    name_in(folder, needed["last night"])
    (folder / "artifacts").mkdir()
    worktree.commit_worktree(folder, "Retrain")
    name_in(folder, needed["the worktree"])

    def commit_with(what: str, *options: str) -> None:
        needed[what] = put(1)
        name_in(Path(), needed[what])
        save(what, *options)

    commit_with("an old commit")
    commit_with("a commit that was amended")
    commit_with("the amended one", "--amend")
    git("checkout", "--quiet", "-b", "other")
    commit_with("another branch")
    git("checkout", "--quiet", "-b", "gone")
    commit_with("a tag")
    git("tag", "paper")
    git("checkout", "--quiet", "--detach", "main")
    commit_with("a remote branch")
    git("update-ref", "refs/remotes/origin/main", "HEAD")
    git("checkout", "--quiet", "main")
    git("branch", "-D", "--quiet", "gone")
    for what in ("an older stash", "the stash"):
        needed[what] = put(1)
        name_in(Path(), needed[what])
        git("stash", "--quiet")
    git("worktree", "add", "--quiet", "--detach", "elsewhere")
    needed["another worktree"] = put(1)
    name_in(Path("elsewhere"), needed["another worktree"])
    needed["an experiment"] = put(1)
    add_experiment("try", needed["an experiment"], BEGIN)
    needed["the index"] = put(1)
    name_in(Path(), needed["the index"])
    git("add", "dvc.lock")
    needed["a file of a folder"] = put(1)
    needed["uncommitted"] = put_folder(needed["a file of a folder"])
    name_in(Path(), needed["uncommitted"])
    Path("sub folder").mkdir()
    needed["a file .dvc"] = put(1)
    name_in(Path("sub folder"), needed["a file .dvc"], file="data.csv.dvc")

    left = put(7)
    unneeded_folder = put_folder(left)
    young = put(1, BEGIN - 6 * DAY)
    told, faults = clean_up(folder, Retention(), BEGIN)
    assert not faults
    assert [what for what, checksum in needed.items() if not cached(checksum)] == []
    assert [cached(checksum) for checksum in (left, unneeded_folder, young)] == [False, False, True]
    assert told.startswith("removed 0 experiments, 0 former champions, 2 files of DVC's cache: ")
    assert clean_up(folder, Retention(), BEGIN) == (
        "removed 0 experiments, 0 former champions, 0 files of DVC's cache: 0 bytes",
        [],
    )


def test_what_a_killed_run_leaves_is_removed_by_the_next(project, monkeypatch):
    folder = worktree.open_worktree()
    git("update-ref", worktree.LAST, "HEAD")
    git("fast-import", "--quiet", given=promotion_of(1, BEGIN))
    for name in ("v0.0.1", "v0.0.0", ".v0.0.0.removed", ".v0.0.1.x7a"):
        (CHAMPIONS / name).mkdir(parents=True)
    files = [put(1), put(1)]
    lists = put_folder(*files)
    unlink = Path.unlink

    def killed(file: Path, **options: bool) -> None:
        if not file.name.endswith(".dir"):
            raise KeyboardInterrupt
        unlink(file, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            clean_up(folder, Retention(), BEGIN)
    assert [cached(checksum) for checksum in (lists, *files)] == [False, True, True]
    clean_up(folder, Retention(), BEGIN)
    assert not any(cached(checksum) for checksum in files)
    assert [entry.name for entry in CHAMPIONS.iterdir()] == ["v0.0.1"]


def test_a_cache_that_may_be_shared_and_one_in_use_are_left_alone(project, monkeypatch):
    folder = worktree.open_worktree()
    old = put(1)
    with monkeypatch.context() as patch:
        patch.setattr(unneeded, "dvc_processes", lambda: ["process 7"])
        faults = clean_up(folder, Retention(), BEGIN)[1]
        assert "because DVC runs here (process 7)" in faults[-1]
    assert clean_up(folder, Retention(cache_days=None), BEGIN)[1] == []
    assert cached(old)
    shutil.move(".dvc/cache", project.parent / "cache")
    subprocess.run(["git", "config", "--file", ".dvc/config", "cache.dir", str(project.parent / "cache")], check=True)
    [fault] = clean_up(folder, Retention(), BEGIN)[1]
    assert "it may be the cache of other workspaces, too" in fault
    assert (project.parent / CACHE.relative_to(".dvc") / old[:2] / old[2:]).exists()


def test_experiments_that_git_has_packed_are_removed_too(project):
    folder = worktree.open_worktree()
    for number in range(5):
        add_experiment(f"try-{number}", put(1), BEGIN + number)
    git("pack-refs", "--all")
    told, _ = clean_up(folder, Retention(experiments=2), BEGIN)
    assert told.startswith("removed 3 experiments, 0 former champions, 3 files of DVC's cache")
    assert experiments() == ["try-3", "try-4"]


def test_a_log_is_bounded_while_a_process_writes_to_it(tmp_path):
    log = tmp_path / "worker.log"
    log.write_text("of the last `make ui`\n")
    command = 'for i in $(seq 5); do for j in $(seq 200); do echo "line $i $j"; done; read -r _; done'
    with open_log(log) as file:
        writer = subprocess.Popen(["bash", "-c", command], stdin=subprocess.PIPE, stdout=file, text=True)
    assert writer.stdin
    sizes = []
    for number in range(1, 6):
        while f"line {number} 200\n" not in log.read_text():
            assert writer.poll() is None
        bound_log(log, 3000)
        sizes.append((log.stat().st_size, (tmp_path / "worker.log.1").exists()))
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert writer.wait() == 0
    assert [size > 0 for size, _ in sizes] == [True, False, True, False, True]
    assert (tmp_path / "worker.log.1").read_text().startswith("line 3 1\n")
    assert log.read_text().startswith("line 5 1\n")  # no hole of zeros before it
    log.unlink()
    bound_log(log, 1)


# A third of the rows of a night of one model, as `make nights` recorded them; the events are those of its states.
RUNS, TASKS, LOGS, STATES = 3, 11, 33, 44
FLOW = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def database(environment: dict[str, str], tmp_path: Path) -> Path:
    """An empty database with Prefect's newest schema."""
    path = tmp_path / "prefect.db"
    shutil.copy(MIGRATED[0], path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO flow (id, name) VALUES (?, 'retrain')", [FLOW])
    return path


def test_a_year_in_prefects_database_takes_no_more_than_some_weeks(database, monkeypatch):
    kept = Retention()
    sizes = asyncio.run(record_weeks(database, monkeypatch, 52, kept))
    assert sizes[-1] < 1.02 * sizes[kept.runs_days // 7 + 2]
    assert sizes[-1] < 10 * MB


def test_without_a_bound_every_week_adds_to_prefects_database(database, monkeypatch):
    sizes = asyncio.run(record_weeks(database, monkeypatch, 12, None))
    assert sizes[11] - sizes[5] > 0.9 * (sizes[5] - sizes[0]) > 2 * MB


async def record_weeks(path: Path, monkeypatch: pytest.MonkeyPatch, weeks: int, kept: Retention | None) -> list[int]:
    """Add the rows of seven nights a week, have Prefect's service remove old ones, and return the size each week."""
    from prefect.server.database import provide_database_interface
    from prefect.server.database.dependencies import temporary_database_config
    from prefect.server.services import db_vacuum
    from prefect.settings import Settings

    from orchestration.prefect.app import WritingSqliteConfiguration

    for name, value in vacuum_environment(kept or Retention()).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    monkeypatch.setattr(db_vacuum, "get_current_settings", lambda: settings)
    config = WritingSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{path}")
    sizes = []
    with temporary_database_config(config):
        for week in range(weeks):
            for day in range(7):
                record_night(path, datetime.fromtimestamp(BEGIN + (7 * week + day) * DAY, UTC))
            now = datetime.fromtimestamp(BEGIN + (7 * week + 7) * DAY, UTC)
            monkeypatch.setattr(db_vacuum, "now", lambda _, now=now: now)
            if kept:
                db = provide_database_interface()
                for _ in range(2):  # it does so every hour; what was a part of a removed run is removed the next time
                    await db_vacuum.vacuum_old_flow_runs(db=db)
                await db_vacuum.vacuum_old_events(db=db)
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            sizes.append(path.stat().st_size)
    engine = await config.engine()
    await engine.dispose()
    return sizes


def record_night(path: Path, when: datetime) -> None:
    """Add a run that has ended, its tasks, the runs that these started, and their states, logs and events."""
    time = f"{when:%Y-%m-%d %H:%M:%S.%f}"
    runs, tasks = ([str(uuid4()) for _ in range(count)] for count in (RUNS, TASKS))
    details = json.dumps({"details": "x" * 480})
    rows = {
        "flow_run (id, name, flow_id, state_type, end_time)": [(run, "r", FLOW, "COMPLETED", time) for run in runs],
        "task_run (id, name, task_key, dynamic_key, flow_run_id)": [
            (task, "t", "t", task, runs[number % RUNS]) for number, task in enumerate(tasks)
        ],
        "task_run_state (type, name, timestamp, state_details, task_run_id)": [
            ("RUNNING", "Running", f"{time}{number}", details, tasks[number % TASKS]) for number in range(STATES)
        ],
        "log (name, level, message, timestamp, flow_run_id)": [
            ("prefect", 20, "m" * 69, time, runs[number % RUNS]) for number in range(LOGS)
        ],
        "events (id, event, occurred, resource_id, resource, payload, received, recorded)": [
            (str(uuid4()), "prefect.task-run.Running", time, "r" * 50, details, details, time, time)
            for _ in range(STATES)
        ],
        "event_resources (occurred, resource_id, resource_role, resource, event_id)": [
            (time, "r" * 50, "", details, str(uuid4())) for _ in range(STATES)
        ],
    }
    with closing(sqlite3.connect(path, timeout=60)) as connection, connection:
        for table, added in rows.items():
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(added[0]))})", added)
        parts = [(tasks[0], run) for run in runs[1:]]
        connection.executemany("UPDATE flow_run SET parent_task_run_id = ? WHERE id = ?", parts)
