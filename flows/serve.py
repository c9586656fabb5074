"""A server that answers with the champions over HTTP, until Ctrl-C.

It speaks the Open Inference Protocol (/v2) and the REST interface of TensorFlow Serving (/v1); its page at / has a line
to paste for each model. A new champion replaces the old one between two requests. If the variable HEAVISIDE_SERVE_TOKEN
is set, every request must show that token.
"""

import argparse
import dataclasses
import os
import sys
from pathlib import Path

from flows.ui import port_number
from orchestration.prefect.interrupts import catch_signals
from serving.limits import Limits
from serving.settings import HOST, PORT, TOKEN, Settings


def main() -> int:
    given = parse()
    catch_signals()
    try:
        # The imports take seconds.
        from orchestration.command_line import exit_on_user_error, prepare_process
        from serving.server import is_local, refuse_open, serve, usable_token
        from serving.sources import folder_source, registry_source
    except KeyboardInterrupt:
        return 130
    prepare_process()
    with exit_on_user_error("the server has ended."):
        limits = Limits(**{each.name: getattr(given, each.name) for each in dataclasses.fields(Limits)})
        token = usable_token(os.environ.pop(TOKEN, None))  # no process that is started here needs it
        refuse_open(given.host, token, given.open)
        source = folder_source(given.models, given.names) if given.models else registry_source(given.names)
        serve(source, Settings(limits, token, is_local(given.host), not given.quiet), given.host, given.port)
        raise KeyboardInterrupt  # the server has ended in order, by a signal
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m flows.serve", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="MODEL", help="all models that have a champion unless given")
    parser.add_argument("--host", default=HOST, help=f"on which it listens; default: {HOST}, this machine alone")
    parser.add_argument("--port", type=port_number, default=PORT, help=f"default: {PORT}")
    parser.add_argument(
        "--models",
        type=Path,
        metavar="FOLDER",
        help="serve FOLDER/MODEL/saved_model, or the newest FOLDER/MODEL/VERSION/saved_model, without a registry",
    )
    parser.add_argument("--open", action="store_true", help=f"answer other machines without {TOKEN}, too")
    parser.add_argument("--quiet", action="store_true", help="print no line for each request")
    for each in dataclasses.fields(Limits):
        kind = float if isinstance(each.default, float) or each.name.endswith("seconds") else int
        told = f"{each.metadata['told']}; default: {each.default}"
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=kind, default=each.default, metavar="N", help=told)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
