"""The Prefect UI of this workspace: a server, a worker and the deployments of prefect.yaml, until Ctrl-C."""

import argparse
import sys

from orchestration.prefect.interrupts import catch_signals, has_caught_signal

PORT = 4200
LAST = """print how the last scheduled runs of each deployment ended, without starting a UI; the exit code is 0 if the
last one of each has completed and every active schedule has further runs planned, else 1"""


def main() -> int:
    given = parse()
    catch_signals()
    try:
        if not given.last:
            print(f"starting the server on port {given.port} ...", flush=True)
        # The imports take seconds; something should be on the screen before.
        from orchestration.command_line import exit_on_user_error, prepare_process
        from orchestration.prefect.ui import serve, show_last
    except KeyboardInterrupt:
        return 130
    prepare_process()
    catch_signals()
    with exit_on_user_error("interrupted." if given.last else "the server and the worker have ended."):
        try:
            return show_last() if given.last else serve(given.port)
        except Exception:
            if has_caught_signal():  # a library has turned the interrupt into an error of its own
                raise KeyboardInterrupt from None
            raise


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m flows.ui", description=__doc__)
    parser.add_argument("--port", type=port_number, default=PORT, help=f"of the server; default: {PORT}")
    parser.add_argument("--last", action="store_true", help=LAST)
    return parser.parse_args()


def port_number(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 65535, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
