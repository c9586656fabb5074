"""Folders that are mounted, full, read-only, of other users or of odd names, in runs of their own."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from config import paths
from orchestration.dvc.state import USERS, repair_dvc_state
from runtime.errors import UserError
from tests.support.workspaces import ROOT, keep_only, make_workspace

# Workspaces begin with the database of a server of their own, which takes longer to make than to start.
pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def mounting() -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount (root)")


def in_mounts(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run a shell script that may mount what nobody else sees. $PYTHON: the interpreter."""
    settings = {**os.environ, "PYTHON": sys.executable, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ["unshare", "--mount", "sh", "-ec", script]
    return subprocess.run(
        command, cwd=folder, env=settings | environment, capture_output=True, text=True, check=False, timeout=900
    )


def hidden_folders(folder: Path) -> list[Path]:
    return list(folder.rglob(paths.STAGING.name))


@pytest.mark.parametrize("kind", ["another disk", "the same disk"])
def test_a_folder_that_is_a_mount_point_gets_its_new_content(mounting, other_disk, workspace, tmp_path, kind):
    source = other_disk if kind == "another disk" else tmp_path / "source"
    source.mkdir(exist_ok=True)
    (source / "notes.txt").write_text("mine")
    (source / "file").write_text("old")
    code = "from tests_of_disks import publish; publish('new')"
    (workspace / "tests_of_disks.py").write_text(
        "from pathlib import Path\nfrom runtime.atomic_outputs import atomic_folder\n"
        "def publish(text):\n    with atomic_folder(Path('artifacts/m')) as folder:\n"
        "        (folder / 'file').write_text(text)\n        (folder / 'another').write_text(text)\n"
    )
    (workspace / "artifacts/m").mkdir(parents=True)
    done = in_mounts(f'mount --bind \'{source}\' artifacts/m; exec "$PYTHON" -c "{code}"', workspace)
    assert done.returncode == 0, done.stderr
    found = {file.name: file.read_text() for file in source.iterdir()}
    assert found == {"notes.txt": "mine", "file": "new", "another": "new"}


@pytest.mark.rotates
def test_the_pipeline_runs_where_every_folder_is_a_disk_of_its_own(mounting, other_disk, tmp_path, dvc_folder):
    workspace = make_workspace(tmp_path / "ws")
    shutil.copy(ROOT / ".dvcignore", workspace)
    shutil.copytree(dvc_folder, workspace / ".dvc")
    mounts = []
    for name in (
        "data",
        "artifacts",
        "logs",
        "checkpoints",
        "reports",
        ".staging",
        ".prefect",
        ".dvc/cache",
        ".dvc/tmp",
    ):
        (workspace / name).mkdir(exist_ok=True)
        shutil.copytree(workspace / name, other_disk / name)
        mounts.append(f"mount --bind '{other_disk / name}' {name}")
    run = '"$PYTHON" -m flows.pipeline'
    train = f"{run} train@iris_perceptron"
    steps = (f"{run} prepare@iris", f"{train} --force", train, '"$PYTHON" -m dvc status train@iris_perceptron')
    script = "\n".join([*mounts, *steps])
    done = in_mounts(script, workspace, PREFECT_API_URL="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout.count("4 stages: 4 unchanged.") == 1
    assert "up to date" in done.stdout
    assert (other_disk / "artifacts/iris_perceptron/model.keras").exists()
    assert not [found for found in hidden_folders(other_disk) if found != other_disk / paths.STAGING.name]


def run_plainly(folder: Path, *words: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess:
    """Run `python -m WORDS` with a server of its own; before: what starts it."""
    command = [*before, sys.executable, "-B", "-m", *words]
    settings = {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}
    settings["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False, timeout=900)


def assert_one_message(done: subprocess.CompletedProcess, *told: str) -> None:
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1, done.stderr
    assert len(errors) == 1, done.stderr
    assert all(words in errors[0] for words in told), errors[0]
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("words", [("flows.ingest", "iris"), ("flows.pipeline",), ("flows.demo",)])
def test_a_read_only_workspace_is_told_with_folder_and_remedy(mounting, workspace, words):
    script = f'mount --bind . .; mount -o remount,bind,ro .; cd "$PWD"; exec "$PYTHON" -B -m {" ".join(words)}'
    done = in_mounts(script, workspace, PREFECT_API_URL="")
    assert_one_message(done, str(workspace), "Read-only file system", "Mount it for writing")


# As another user: root without the right to go past the modes of files, since the interpreter may be root's alone.
NO_PASS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]


@pytest.fixture
def of_another_user(other_disk) -> Path:
    """A workspace that belongs to another user than the one whom `NO_PASS` leaves us."""
    if os.geteuid() or subprocess.run([*NO_PASS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs another user (root, setpriv)")
    workspace = make_workspace(other_disk / "ws")
    for entry in (workspace, *workspace.rglob("*")):
        os.chown(entry, 65534, 65534)
    return workspace


@pytest.mark.parametrize(
    ("words", "home"),
    [
        (("flows.ingest", "iris"), "no Prefect home"),
        (("flows.pipeline",), "a Prefect home"),
        (("flows.demo",), "no Prefect home"),
    ],
)
def test_a_workspace_of_another_user_is_told_with_folder_and_remedy(of_another_user, words, home):
    shutil.rmtree(of_another_user / ".prefect", ignore_errors=True)
    if home == "a Prefect home":  # as a server of theirs makes it
        (of_another_user / ".prefect").mkdir(mode=0o700)
        os.chown(of_another_user / ".prefect", 65534, 65534)
    done = run_plainly(of_another_user, *words, before=NO_PASS)
    assert_one_message(done, str(of_another_user), "Permission denied", "chown, chmod")


def test_a_folder_of_another_user_is_told_before_the_work(of_another_user):
    for own in (of_another_user, of_another_user / ".prefect", *(of_another_user / ".prefect").iterdir()):
        os.chown(own, 0, 0)
    (of_another_user / "data/raw").mkdir(parents=True)
    os.chown(of_another_user / "data/raw", 65534, 65534)
    done = run_plainly(of_another_user, "flows.ingest", "iris", before=NO_PASS)
    assert_one_message(done, str(of_another_user / "data/raw"), "Permission denied", "chown, chmod")
    assert not [*(of_another_user / "data/raw").iterdir()]


FILLING = """
import shutil, subprocess, sys
from pathlib import Path
from config import paths
from runtime.disk import explain
from datasets import get_dataset
from runtime.atomic_outputs import atomic_files, atomic_folder
from tasks.preparation.ingest import fetch, write_raw

def publish(source_rows, text):
    with atomic_files(paths.RAW, "iris") as folder:
        write_raw(dataset, "sample", table.slice(0, source_rows), folder)
    with atomic_folder(Path("data/own")) as folder:
        for name in "ab":
            (folder / name).write_text(text * 3000)

dataset = get_dataset("iris")
table = fetch(dataset, "sample")
whole = full = 0
for kilobytes in range(16, 104, 4):
    Path("data").mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", sys.argv[1]], check=True)
    try:
        publish(100, "old")
        kept = {file: file.read_bytes() for file in Path("data").rglob("*") if file.is_file()}
        assert len(kept) == 4, kept
        try:
            publish(150, "newer")
            whole += 1
        except OSError as error:
            assert "no space left on the disk" in explain(error), error
            full += 1
        found = {file: file.read_bytes() for file in Path("data").rglob("*") if file.is_file()}
        assert found.keys() == kept.keys(), found.keys()
        for group in ("raw", "own"):
            same = {found[file] == kept[file] for file in kept if group in file.parts}
            assert len(same) == 1, (kilobytes, group)
    except OSError as error:
        assert "no space left" in explain(error), error
    finally:
        subprocess.run(["umount", sys.argv[1]], check=True)
        shutil.rmtree(paths.STAGING, ignore_errors=True)
        paths.STAGING.mkdir()
print(whole, full)
"""


@pytest.mark.parametrize("disk", ["data", ".staging"])
def test_a_disk_that_is_full_at_any_moment_leaves_old_or_new_files_and_no_mixture(mounting, workspace, disk):
    paths.STAGING.mkdir()
    (workspace / "filling.py").write_text(FILLING)
    done = in_mounts(f'exec "$PYTHON" filling.py {disk}', workspace)
    assert done.returncode == 0, done.stderr
    whole, full = map(int, done.stdout.split())
    assert whole
    assert full


def test_a_broken_list_of_dvcs_users_stays_while_dvc_runs(dvc_workspace):
    USERS.write_text("")
    (dvc_workspace / "dvc").write_text("import sys; sys.stdin.read()")
    other = subprocess.Popen([sys.executable, "dvc", "repro"], cwd=dvc_workspace, stdin=subprocess.PIPE)
    try:
        with pytest.raises(UserError, match=rf"{USERS} is damaged.*process {other.pid}.*remove {USERS}"):
            repair_dvc_state()
    finally:
        with contextlib.suppress(BrokenPipeError):
            other.communicate(timeout=60)
    assert USERS.exists()


@pytest.mark.rotates
def test_a_model_is_trained_and_reported_in_a_folder_of_any_name(tmp_path, dvc_folder):
    workspace = make_workspace(tmp_path / "a [b] *?%20#'\"$HOME &;`\xe9\U0001f600")
    keep_only(workspace, ["linear_neuron"])
    shutil.copytree(dvc_folder, workspace / ".dvc")
    done = run_plainly(workspace, "flows.pipeline")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (workspace / "artifacts/linear_neuron/saved_model/saved_model.pb").exists()
    assert list((workspace / "logs/linear_neuron").rglob("events.out.tfevents.*"))
    assert (workspace / "reports/models/linear_neuron.html").exists()


def test_a_path_that_dvc_cannot_work_in_is_refused_in_one_message(tmp_path):
    workspace = make_workspace(tmp_path / "a {b}")
    assert_one_message(run_plainly(workspace, "flows.ingest", "iris"), "'{'", "Move or rename it")
