"""The accepted batches of a data set: data/batches/D holds them whole, named NUMBER-NAME in the order of acceptance."""

import hashlib
import re
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from config import paths
from runtime.disk import refuse_unless_file, refuse_unless_folder
from runtime.errors import UserError

LOCK_FILE = Path("dvc.lock")
NUMBERED = re.compile(r"(\d{4,})-.")
MAX_NAME = 160  # bytes, so that a number, an ending, and the name of a temporary copy still fit


def numbered(folder: Path) -> list[Path]:
    """Return what lies in a folder of batches, or of rejected arrivals, in the order of its numbers."""
    if not folder.is_dir():
        return []
    found = [entry for entry in folder.iterdir() if NUMBERED.match(entry.name)]
    return sorted(found, key=lambda entry: (number_of(entry), entry.name))


def number_of(entry: Path) -> int:
    match = NUMBERED.match(entry.name)
    return int(match[1]) if match else 0


def list_batches(dataset: str) -> list[Path]:
    """Return the batches of a data set in the order of acceptance; raises UserError where something else lies there."""
    folder = paths.batches_folder(dataset)
    refuse_unless_folder(folder)
    batches = numbered(folder)
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if entry not in batches and not entry.name.startswith("."):
            raise UserError(
                f"{entry} is no accepted batch: nobody checked it. Move it to {paths.incoming_folder(dataset)} and run "
                f"`python -m flows.receive {dataset}`."
            )
    return batches


def safe_name(name: str) -> str:
    """Return a name of at most MAX_NAME bytes with letters, digits, spaces and -_.,+=() alone, and the same ending."""
    kept = "".join(letter if letter.isalnum() or letter in " -_.,+=()" else "_" for letter in name)
    stem, ending = Path(kept).stem, Path(kept).suffix
    if len(ending.encode()) > MAX_NAME // 2:
        stem, ending = kept, ""
    return stem.encode()[: MAX_NAME - len(ending.encode())].decode(errors="ignore") + ending


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of a folder's files."""
    if not path.is_dir():
        with path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    whole = hashlib.sha256()
    for file in files_of(path):
        whole.update(f"{file.relative_to(path).as_posix()}\0{digest(file)}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in files_of(path))


def files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def equal_to(path: Path, others: list[Path]) -> Path | None:
    """Return the first of `others` whose bytes are those of `path`."""
    alike = [other for other in others if other.is_dir() == path.is_dir() and size(other) == size(path)]
    sought = digest(path) if alike else ""
    return next((other for other in alike if digest(other) == sought), None)


def refuse_lost_batches(dataset: str) -> None:
    """Raise UserError where data/batches/D holds fewer files than dvc.lock records, as in a clone without `dvc pull`.

    To go on would lose them: the next run would record the folder as it is. git brings dvc.lock along, so this compares
    with it; a list in the folder itself would be missing together with the batches. Batches are only ever added, so
    their number tells.
    """
    folder = paths.batches_folder(dataset)
    recorded = recorded_files(dataset)
    found = len(files_of(folder)) if folder.is_dir() else 0
    if found < recorded:
        raise UserError(
            f"{folder} lacks batches: it holds {found} of the {recorded} files that {LOCK_FILE} records. Run "
            f"`dvc pull {folder}`, or `dvc checkout {folder}` where DVC's cache has them. If you have removed a batch "
            f"for good, run `dvc commit --force receive@{dataset}`."
        )


def recorded_files(dataset: str) -> int:
    """Return how many files of data/batches/D dvc.lock records."""
    refuse_unless_file(LOCK_FILE)
    if not LOCK_FILE.exists():
        return 0
    try:
        stages = (YAML(typ="safe").load(LOCK_FILE.read_text(encoding="utf-8")) or {}).get("stages", {})
        outs = stages.get(f"receive@{dataset}", {}).get("outs", [])
        return sum(int(out.get("nfiles", 0)) for out in outs)
    except (YAMLError, ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"{LOCK_FILE} cannot be read ({' '.join(str(error).split())}). Restore it from git: "
            f"`git checkout {LOCK_FILE}`."
        ) from None
