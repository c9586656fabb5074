"""Kill `receive` before each of its steps in the file system, and check what is then where.

`python -m tests.support.killed_receive DATASET FOLDER [OTHER]` works in FOLDER, with the batches on the disk of OTHER.
It exits with 0 where nothing was lost or taken twice, and prints how many steps there were.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import chdir
from itertools import count
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from config import paths
from datasets import get_dataset
from tasks.arrivals import receive as receiving
from tasks.arrivals.receive import receive

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.copytree", "shutil.copyfile"}
SOUND = "sepal_length,sepal_width,petal_length,petal_width,species\n5.1,3.5,1.4,0.2,0\n"
Content = dict[str, bytes]


def put_arrivals(dataset: str) -> dict[str, Content]:
    """Put a sound and an unsound arrival of each kind into data/incoming, and return their contents by name."""
    incoming = paths.incoming_folder(dataset)
    incoming.mkdir(parents=True)
    if dataset == "iris":
        (incoming / "a.csv").write_text(SOUND)
        (incoming / "b.csv").write_text(SOUND.replace("0.2,0", "0.2,7"))
        (incoming / "c.csv").write_text(SOUND.replace("5.1", "5.2"))
    else:
        for name, size in (("a", 28), ("b", 32)):
            (incoming / name).mkdir()
            for number in range(2):
                Image.new("L", (size, size), number).save(incoming / name / f"{number}.png")
            (incoming / name / "labels.csv").write_text("file,label\n0.png,3\n1.png,4\n")
        rows = get_dataset(dataset).generate().slice(0, 5).drop_columns("split")
        pq.write_table(rows, incoming / "c.parquet")
    for path in [*incoming.iterdir(), *incoming.rglob("*")]:
        os.utime(path, (0, 0))
    return {path.name: content(path) for path in incoming.iterdir()}


def content(path: Path) -> Content:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def in_child(work: Callable[[], object]) -> int:
    """Do `work` in a fork, and return its status."""
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    return os.waitpid(child, 0)[1]


def killed_before(step: int, dataset: str) -> int:
    """Receive in a child that is killed before its step of this number; return its status."""

    def work() -> None:
        left = step

        def hook(event: str, given: tuple) -> None:
            nonlocal left
            if event in EVENTS and any("data/" in os.fsdecode(name) for name in given if isinstance(name, str | Path)):
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        receive(get_dataset(dataset))

    return in_child(work)


def visible(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*")) if not path.name.startswith(".")]


def check(dataset: str, arrivals: dict[str, Content], complete: bool) -> None:
    """Fail unless each arrival is whole in one place at least, and what lies in the folders of DVC is whole.

    Args:
        dataset: that receives.
        arrivals: what was put there.
        complete: each must be in its final place and nowhere else.
    """
    batches, rejected = (visible(folder / dataset) for folder in (paths.BATCHES, paths.REJECTED))
    rejected = [path for path in rejected if not path.name.endswith(".reasons.csv")]
    for path in batches + rejected:
        assert content(path) == arrivals[path.name.partition("-")[2]], f"{path} is not whole"
    incoming = paths.incoming_folder(dataset)
    found = [content(path) for path in [*batches, *rejected, *incoming.glob("*"), *incoming.glob(".moving*/*")]]
    for name, whole in arrivals.items():
        assert whole in found, f"{name} is lost"
    if complete:
        names = [path.name for path in batches], [path.name for path in rejected]
        wanted = [*arrivals]
        assert names == ([f"0001-{wanted[0]}", f"0002-{wanted[2]}"], [f"0001-{wanted[1]}"]), names
        assert [*incoming.iterdir()] == [], "data/incoming is not empty"
        left = [*paths.batches_folder(dataset).glob(".*"), *paths.rejected_folder(dataset).glob(".*")]
        assert left == [], f"{left} is left"
        table = paths.rejected_folder(dataset) / f"0001-{wanted[1]}.reasons.csv"
        assert len(table.read_text().splitlines()) > 1


def main() -> None:
    dataset, root, *other = sys.argv[1:]
    receiving.read_expectations = lambda dataset: None  # that of a single row are not met
    first = Path(root, "0")
    first.mkdir()
    with chdir(first):  # once here, so that no child imports what `receive` needs
        arrivals = dict(sorted(put_arrivals(dataset).items()))
        shutil.copytree(paths.incoming_folder(dataset), "arrivals")
        receive(get_dataset(dataset))
    for step in count(1):
        folder = Path(root, str(step))
        folder.mkdir()
        with chdir(folder):
            for place in (paths.BATCHES, paths.REJECTED):
                if other:
                    target = Path(other[0], str(step), place.name)
                    target.mkdir(parents=True)
                    place.parent.mkdir(exist_ok=True)
                    place.symlink_to(target)
            shutil.copytree(first / "arrivals", paths.incoming_folder(dataset))
            status = killed_before(step, dataset)
            assert status in (0, signal.SIGKILL), f"step {step}: {status}"
            check(dataset, arrivals, complete=not status)
            assert in_child(lambda: receive(get_dataset(dataset))) == 0
            check(dataset, arrivals, complete=True)
        shutil.rmtree(folder)
        if not status:
            print(f"{step - 1} steps")
            return


if __name__ == "__main__":
    main()
