"""How the user's environment variables affect our processes: one table, and the code that applies it.

docs/environment.md has the same table. It is applied when the package `flows` is imported, before Prefect, Keras and
TensorFlow, which read their variables at import. Each of our processes starts that way or is a child of one that did.
"""

import fnmatch
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import psutil

from orchestration.streams import make_streams_lenient, open_standard_streams
from runtime.disk import explain
from runtime.errors import UserError
from runtime.stderr import quiet_stderr
from runtime.variables import PIPELINE_PROCESS

LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Set here: the names of the user's proxy variables that were removed; a failed download mentions them.
UNUSED_PROXIES = "HEAVISIDE_UNUSED_PROXIES"
# Set for the processes of our own Prefect servers.
SERVER = "HEAVISIDE_SERVER"
AUTHORITIES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PREFECT_API_SSL_CERT_FILE")

Rule = Literal["ours", "default", "passed on", "shielded", "extended"]


class Family(NamedTuple):
    """Variables with the same rule.

    names: patterns; the first family with a matching one decides. rule: `ours` is set to `value` in any case;
    `default` is set to `value` unless the user has set it; `passed on` stays; `shielded` is removed from our
    processes; `extended` is added to the user's value. keeps: returns what stays of a shielded variable, from its name
    and value; None: nothing. why: the reason, for the document.
    """

    names: tuple[str, ...]
    rule: Rule
    why: str
    value: str = ""
    keeps: Callable[[str, str], str | None] | None = None


def prepare_environment() -> None:
    """Set up the standard streams and the environment of this process, before it imports what reads them.

    Ends the process with one message if nothing can run with what the user has set.
    """
    open_standard_streams()
    if sys.argv[:1] == ["-m"]:  # `python -m flows.NAME` starts; a test has streams of its own
        make_streams_lenient()
    try:
        set_environment()
        refuse_faulty_prefect()
    except UserError as error:
        sys.exit(f"error: {error}")


def set_environment() -> None:
    """Apply the table to this process, and so to those that it starts.

    Raises UserError if a variable that is passed on has a value with which nothing can run.
    """
    refuse_unusable()
    if "error" in os.environ.get("PYTHONWARNINGS", ""):
        warn_as_usual()
    before = dict(os.environ)
    after = {name: value for name in before if (value := treated(name, before[name])) is not None}
    after |= {name: each.value for each in FAMILIES if each.rule == "ours" for name in each.names}
    after = {name: each.value for each in FAMILIES if each.rule == "default" for name in each.names} | after
    after |= exempt_loopback(after)
    if unused := [name for name in before if is_proxy(name) and name not in after]:
        after[UNUSED_PROXIES] = ",".join(sorted(unused))
    for name in before.keys() - after.keys():
        del os.environ[name]
    os.environ.update(after)


def treated(name: str, value: str) -> str | None:
    """Return the value of a user's variable for our processes; None: it is removed."""
    chosen = family(name)
    if chosen.rule != "shielded":
        return value
    return chosen.keeps(name, value) if chosen.keeps else None


def family(name: str) -> Family:
    """Return the first family of the table that matches `name`; the last one matches every name."""
    upper = name.upper()
    name = upper if upper.startswith("PREFECT_") else name  # Prefect ignores case
    return next(each for each in FAMILIES if any(fnmatch.fnmatchcase(name, pattern) for pattern in each.names))


def exempt_loopback(environment: dict[str, str]) -> dict[str, str]:
    """Return the variables that exempt this machine, where a run's server is, from the proxy.

    They are set in both spellings, because libraries prefer different ones. "*" stays alone, as urllib expects it.
    """
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    whole = "*" if hosts == ["*"] else ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])
    return dict.fromkeys(("NO_PROXY", "no_proxy"), whole)


def is_proxy(name: str) -> bool:
    return name.lower().endswith("_proxy") and name.lower() != "no_proxy"


def usable_proxy(_name: str, value: str) -> str | None:
    """Keep the address of a proxy that our clients can use; Prefect's clients do not start with a SOCKS proxy.

    An empty address stays, too: it overrules the other spelling.
    """
    address = value if "://" in value else f"http://{value or 'none'}"
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        return None
    return value if usable and address.isascii() and address.isprintable() and " " not in address else None


def on_terminals(_name: str, value: str) -> str | None:
    """Keep it if standard output and standard error are both terminals."""
    return value if all(stream and stream.isatty() for stream in (sys.stdout, sys.stderr)) else None


def cuda_folder(_name: str, value: str) -> str | None:
    """Keep only the folder of CUDA in XLA_FLAGS, which changes no metric."""
    return " ".join(word for word in value.split() if word.startswith("--xla_gpu_cuda_data_dir=")) or None


def of_our_run(_name: str, value: str) -> str | None:
    """Keep it if the process that it belongs to, a run of the graph or its Dask worker, started this process."""
    process = os.environ.get(PIPELINE_PROCESS, "")
    return value if process in (str(ancestor.pid) for ancestor in psutil.Process().parents()) else None


def of_our_server(_name: str, value: str) -> str | None:
    """Keep it in the processes of our own Prefect servers, for which we have set it."""
    return value if SERVER in os.environ else None


def of_dvc(name: str, value: str) -> str | None:
    """Keep it if DVC or a run of the graph has started this process; in a user's shell it is a leftover."""
    if of_our_run(name, value):
        return value
    for ancestor in psutil.Process().parents():
        try:
            if "DVC_STAGE" not in ancestor.environ():
                return value if is_dvc(ancestor.cmdline()) else None
        except psutil.Error:
            return value
    return None


def is_dvc(command: list[str]) -> bool:
    """Return whether a command line is DVC's: `dvc repro`, `python -m dvc repro`, or DVC's call of itself."""
    return any(Path(word).name == "dvc" or word.endswith("dvc/__main__.py") for word in command[:6])


def refuse_unusable() -> None:
    """Raise UserError if nothing can run with what the user has set."""
    for name in AUTHORITIES:
        if name.startswith("PREFECT_") and not os.environ.get("PREFECT_API_URL"):
            continue  # for a foreign server, which is not used (orchestration/prefect/server.py)
        if (value := os.environ.get(name)) and not Path(value).exists():
            raise UserError(f"{name} names {value}, which does not exist. Correct it or unset it.")
    if sys.flags.optimize > 1:
        raise UserError("PYTHONOPTIMIZE=2, or -OO, removes the docstrings that libraries read. Unset it.")


def refuse_faulty_prefect() -> None:
    """Raise UserError if Prefect cannot read the settings that are passed on to it, or its home is another user's."""
    if "prefect" in sys.modules:
        return
    from pydantic import ValidationError

    faults = []
    with quiet_stderr():  # Prefect reports them, too, at length
        try:
            from prefect.settings import Settings

            Settings().profiles_path.exists()  # Prefect asks when it is imported
        except ValidationError as error:
            faults = error.errors()
        except OSError as error:
            raise UserError(explain(error) or str(error)) from None
    if not faults:
        return
    wrong = str(faults[0].get("input"))
    names = [name for name in os.environ if name.startswith("PREFECT_") and os.environ[name].upper() == wrong.upper()]
    where = " or ".join(names) or "Prefect's setting " + ".".join(map(str, faults[0]["loc"]))
    raise UserError(f"{where}: {faults[0]['msg']}, got {wrong!r}. Correct it or unset it.")


def positive(_name: str, value: str) -> str | None:
    """Keep a positive number of columns or lines; with 0 nothing is printed."""
    return value if value.isdecimal() and int(value) > 0 else None


def warn_as_usual() -> None:
    """Treat warnings of libraries as without PYTHONWARNINGS: printed once, or not at all."""
    sys.warnoptions.clear()  # multiprocessing passes them on to the fork server
    warnings.resetwarnings()
    for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", kind)


FAMILIES = (
    Family(
        ("KERAS_BACKEND",),
        "ours",
        "Exports, fused epochs and resuming need TensorFlow.",
        "tensorflow",
    ),
    Family(("KERAS_HOME",), "ours", "A `keras.json` of the user's would change results.", ".keras"),
    Family(("KERAS_*",), "shielded", "`KERAS_MAX_EPOCHS` and the like change results."),
    Family(("TF_CPP_MIN_LOG_LEVEL",), "default", "Its messages about the processor are noise.", "3"),
    Family(("TF_CPP_*", "TF_GPU_*", "TF_FORCE_GPU_ALLOW_GROWTH"), "passed on", "Its log, and the memory of a GPU."),
    Family(
        ("TF_*", "ONEDNN_*", "DNNL_*", "NVIDIA_TF32_OVERRIDE"),
        "shielded",
        "Other kernels or rounding: `params.yaml` alone decides about results.",
    ),
    Family(("XLA_FLAGS",), "shielded", "Likewise; only `--xla_gpu_cuda_data_dir` stays.", keeps=cuda_folder),
    Family(("ARROW_DEFAULT_MEMORY_POOL",), "default", "Streaming then holds less freed memory.", "jemalloc"),
    Family(
        ("CUDA_*", "NVIDIA_*", "OMP_*", "OPENBLAS_*", "MKL_*"),
        "passed on",
        "Devices and threads of the machine; of several GPUs each training gets one.",
    ),
    Family(
        ("PYTHONSAFEPATH", "PYTHONOPTIMIZE", "PYTHONWARNINGS"),
        "shielded",
        "Stages import from the workspace, libraries need docstrings, their warnings are no errors.",
    ),
    Family(
        ("PREFECT__*", "PREFECT_API_*", "PREFECT_CLIENT_*", "PREFECT_CLOUD_*", "PREFECT_HOME", "PREFECT_LOGGING_LEVEL"),
        "passed on",
        "Server, login, database, log level. A faulty value is an error.",
    ),
    Family(
        ("PREFECT_SERVER_*", "PREFECT_UI_*"),
        "shielded",
        "Our server has its own settings (`orchestration/prefect/server.py`).",
        keeps=of_our_server,
    ),
    Family(("PREFECT_WORKER_*",), "passed on", "How the worker of `make ui` works."),
    Family(
        ("PREFECT_*",),
        "shielded",
        "Profiles, retries, caches, results, log handlers: `pyproject.toml` decides how flows run.",
    ),
    Family(
        ("DVC_STAGE", "DVC_ROOT"),
        "shielded",
        "Kept only if DVC or a run has set them for this process.",
        keeps=of_dvc,
    ),
    Family(("DVC_*",), "passed on", "DVC's own settings."),
    Family((UNUSED_PROXIES,), "passed on", "Set by this table: the proxies that it removed."),
    Family((SERVER,), "passed on", "Set for the processes of a Prefect server of ours."),
    Family(("HEAVISIDE_UI",), "passed on", "Set by `make ui` to find its processes."),
    Family(("HEAVISIDE_PREFECT_DATABASE",), "passed on", "The database of the server of `make ui` (docs/scale.md)."),
    Family(("HEAVISIDE_WEBHOOK",), "passed on", "The address that `make ui` calls when something has happened."),
    Family(("HEAVISIDE_SERVE_TOKEN",), "passed on", "The token that a request to `make serve` must show."),
    Family(
        ("HEAVISIDE_*",),
        "shielded",
        "Our own; kept only in processes that a run started.",
        keeps=of_our_run,
    ),
    Family(
        ("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"),
        "shielded",
        "A git hook sets them; only the workspace's repository counts.",
    ),
    Family(
        ("NO_PROXY", "no_proxy"),
        "extended",
        "`localhost`, `127.0.0.1` and `::1` are added: the server of a run is on this machine.",
    ),
    Family(
        ("*_PROXY", "*_proxy", "*_Proxy"),
        "shielded",
        "Kept if it names an HTTP proxy; with others Prefect does not start.",
        keeps=usable_proxy,
    ),
    Family(
        ("FORCE_COLOR", "CLICOLOR_FORCE", "PY_COLORS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"),
        "shielded",
        "Kept on terminals only: a log has no control characters.",
        keeps=on_terminals,
    ),
    Family(("COLUMNS", "LINES"), "shielded", "Kept if positive: with 0 nothing is printed.", keeps=positive),
    Family(
        ("SSL_CERT_*", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        "passed on",
        "Certificates. A file that does not exist is an error.",
    ),
    Family(
        ("TFDS_DATA_DIR", "SCIKIT_LEARN_DATA"),
        "passed on",
        "The caches of the data sets' loaders.",
    ),
    Family(
        ("*",),
        "passed on",
        "Everything else: `PATH`, `HOME`, `TMPDIR`, `LANG`, `LC_*`, `TZ`, `TERM`, `NO_COLOR`, `PYTHON*`, `AWS_*`.",
    ),
)


def described(chosen: Family) -> str:
    """Return the row of a family in the table of the document."""
    names = ", ".join(f"`{name}`" for name in chosen.names)
    return f"| {names} | {chosen.rule}{f': `{chosen.value}`' if chosen.value else ''} | {chosen.why} |"
