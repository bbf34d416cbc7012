# `make help` says what there is. Only make, python3 and root are needed; everything else is installed on the way.

.DEFAULT_GOAL := help
.PHONY: help demo demo-shell on-host demo-down demo-clean check static unit e2e test bench lock
MAKEFLAGS += --no-print-directory
export PYTHONPATH := agent
PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest -q
HOST := python3 -m tests.host

help:
	@echo "Try it (on a disposable Docker host in a container; nothing of this machine's is touched):"
	@echo "  make demo              a first day: start, back up, verify, lose a database, restore it"
	@echo "  make demo-shell        a shell on the demo's host"
	@echo "  make on-host CMD='…'   one command on the demo's host"
	@echo "  make demo-down         remove the demo's host without a trace"
	@echo "  make demo-clean        remove the images it was made from, too"
	@echo "Work on it:"
	@echo "  make check             format, lint, types, layers, unit tests: two minutes"
	@echo "  make test              all of that and the tests on real Btrfs and real Docker hosts"
	@echo "  make unit, make e2e    only these; ARGS='-k name -x' goes to pytest"
	@echo "  make bench             measure against the usual tools, write docs/benchmarks.md; ARGS=scrape: only that group"
	@echo "  make lock              write the lock files for pyproject.toml; ARGS=--upgrade for newer versions"

demo:
	@$(HOST) demo

demo-shell:
	@$(HOST) shell

# As it was typed: make would expand a $$ in it.
on-host: export ON_HOST := $(value CMD)
on-host:
	@$(HOST) on-host

demo-down:
	@$(HOST) down

demo-clean:
	@$(HOST) clean

check: static unit

static: .venv/made
	@.venv/bin/ruff format --quiet --check --diff .
	@.venv/bin/ruff check --quiet .
	@$(PYTHON) -m mypy --no-error-summary agent tests/host tests/conftest.py
	@.venv/bin/lint-imports --no-logo >.venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }

# Real engines and disks answer late on a machine that has other work: what fails is tried once more, by itself. What
# fails then, fails.
AGAIN := $(PYTEST) --last-failed --last-failed-no-failures none

# These mostly wait for hosts: three at a time, the tests of a module on one host.
HOSTS := -n 3 --dist loadfile

unit: .venv/made
	@$(PYTEST) -n 6 --maxschedchunk 1 tests/unit $(ARGS) || $(AGAIN) tests/unit $(ARGS)

e2e: .venv/made
	@$(HOST) tools
	@$(PYTEST) $(HOSTS) tests/e2e $(ARGS)

test: .venv/made
	@$(HOST) tools
	@$(MAKE) check
	@$(PYTEST) $(HOSTS) tests/btrfs tests/e2e $(ARGS) || $(AGAIN) tests/btrfs tests/e2e $(ARGS)

bench: .venv/made
	@$(HOST) tools
	@PYTHONPATH=agent:tests $(PYTHON) -m bench $(ARGS)

LOCK := .venv/lock/bin/uv pip compile --quiet $(ARGS) --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'
BUILD_REQUIRES := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")
lock: .venv/made
	@$(PYTHON) -m venv .venv/lock && .venv/lock/bin/pip install -qq uv
	@$(LOCK) pyproject.toml --output-file requirements.lock
	@$(LOCK) pyproject.toml --extra dev --output-file requirements-dev.lock
	@$(PYTHON) -c '$(BUILD_REQUIRES)' | $(LOCK) - --output-file requirements-build.lock

.venv/made: requirements-dev.lock
	@tests/host/venv
