# Every target does its own set-up; `make` alone lists them.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
BIN := .venv/bin
export PYTHONNOUSERSITE := 1
# With it `python -m` does not find the code in the workspace.
unexport PYTHONSAFEPATH

READY := .venv/.ready

# Python runs this line at its start, so that `.venv/bin/dvc repro` finds the stages' `python` without activation, and
# that one the code in the workspace; and so that DVC, whose standard error may be closed, has one.
VENV_FIRST := import os, sys; os.environ["PATH"] = os.pathsep.join([os.path.join(sys.prefix, "bin"), os.environ.get("PATH", "")]); os.environ.pop("PYTHONSAFEPATH", None); [setattr(sys, name, open(os.devnull, mode)) for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")) if getattr(sys, name) is None]

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: $(READY) ## create .venv with every pinned dependency

# Bytecode is compiled once, here, for every stage is a process of its own, and where Python may not write it
# (PYTHONDONTWRITEBYTECODE, an image that is read-only) each would compile Prefect and TensorFlow anew, for seconds.
$(READY): requirements.lock Makefile
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "Python 3.11 to 3.13 is needed, %s is %d.%d: make PYTHON=python3.11 ..." % (sys.executable, *v))'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python -m uv pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.lock
	@echo '$(VENV_FIRST)' > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/venv_first.pth"
	@touch $@

demo: $(READY) ## the whole pipeline on the built-in sample, in demo/, without a network
	$(BIN)/python -m flows.demo

nights: DATASET = california_housing
nights: $(READY) ## twelve nights of new rows of DATASET=california_housing or fashion_mnist, in nights/ (10 minutes, or more)
	$(BIN)/python -m flows.nights $(DATASET)

repro: $(READY) ## the whole pipeline on the real data (dvc repro)
	$(BIN)/dvc repro

pipeline: $(READY) ## the same, several stages at a time, as a Prefect flow
	$(BIN)/python -m flows.pipeline

ui: PORT = 4200
ui: $(READY) ## the Prefect UI on this machine, at PORT=4200: start and schedule runs there
	$(BIN)/python -m flows.ui --port $(PORT)

serve: PORT = 8500
serve: $(READY) ## answer with the champions over HTTP, at PORT=8500
	$(BIN)/python -m flows.serve --port $(PORT)

# A test of a server waits more than it computes, so two workers share a core there.
PYTEST := $(BIN)/python -m pytest --dist loadgroup --maxprocesses 8
WORKERS = $(shell $(BIN)/python -c 'import os; print(2 * len(os.sched_getaffinity(0)))')

test: $(READY) ## the fast tests: no network, no server, no browser
	$(PYTEST) --numprocesses auto --hypothesis-profile fast -m 'not slow' tests/unit tests/training

test-rest: $(READY) ## what `make test` leaves out, and the property tests with more examples
	$(PYTEST) --numprocesses $(WORKERS) $(if $(SHARE),--share $(SHARE)) -m 'integration or e2e or slow or hypothesis' --durations 25

test-all: $(READY) ## every test
	$(PYTEST) --numprocesses $(WORKERS) --durations 25

bench: $(READY) ## time every fit, prediction, the server and search against bare ones (over 90 minutes)
	$(BIN)/dvc repro --quiet prepare
	$(BIN)/python -m benchmarks

check: $(READY) ## lint, formatting, types, import rules, commit messages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python .ci/check-commits

format: $(READY) ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

metrics: $(READY) ## what every model reaches on test, and what the experiments changed
	$(BIN)/python -m flows.metrics

tensorboard: $(READY) ## show the training logs
	$(BIN)/tensorboard --logdir logs

lock: $(READY) ## pin every dependency of pyproject.toml anew
	$(BIN)/python -m uv pip compile --quiet --universal --no-header --no-annotate --generate-hashes --upgrade --extra dev pyproject.toml -o requirements.lock

.PHONY: help setup demo nights repro pipeline ui serve test test-rest test-all bench check format metrics tensorboard lock
