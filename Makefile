# Every target sets up .venv in this checkout first when it is missing or out of date.
# Another Python: make PYTHON=/path/to/python3.12 test
.DEFAULT_GOAL := help
.PHONY: help setup run demo test test-all check format bench docs clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= python3 python3.13 python3.12 python3.11 python3.10
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
SUITABLE := import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))
# The scripts whose claims are checked in some minutes; benchmarks/README.md lists them all. EDGE_CL_DATA has the pictures.
SHORT_BENCHES := flash.py footprint.py speed.py "accuracy.py --seeds 1"

help:  ## what can be made
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10

setup: $(READY)  ## install into .venv, nothing else

# Rebuilt only when a requirement changed; interrupted, it is not marked ready and the next call goes on.
$(READY): pyproject.toml constraints.txt
	@if ! $(BIN)/python -c '$(SUITABLE)' 2>/dev/null; then \
	  for each in $(PYTHON); do \
	    if command -v $$each >/dev/null 2>&1 && $$each -c '$(SUITABLE)' >/dev/null 2>&1; then python=$$each; break; fi; \
	  done; \
	  if [ -z "$$python" ]; then \
	    echo "edge-cl: no Python >= 3.10 with venv among: $(PYTHON)." >&2; \
	    echo "Install one (Debian, Raspberry Pi OS: sudo apt-get install python3-venv) or name it: make PYTHON=/path/to/python3" >&2; \
	    exit 2; \
	  fi; \
	  echo "edge-cl: making $(VENV) with $$($$python --version)"; \
	  $$python -m venv --clear $(VENV); \
	fi
	@echo "edge-cl: installing into $(VENV)"
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: $(READY)  ## the mission: two devices and a host, from a first signed release to a bad one undone
	@$(BIN)/python benchmarks/mission.py

demo: $(READY)  ## one device alone: taught class by class, killed and started again, beside its peers
	@$(BIN)/python benchmarks/demo.py

test: $(READY)  ## the quick tests
	@$(BIN)/python -m pytest -q -m "not slow" -n 2

test-all: $(READY)  ## every test, the slow ones too
	@$(BIN)/python -m pytest -q

check: $(READY)  ## format, lint, types, and the import table
	@$(BIN)/ruff format --check --quiet . || { echo "run: make format" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_architecture.py

format: $(READY)  ## put every file into the one format
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

bench: $(READY)  ## the short benchmarks; the ledger is benchmarks/RESULTS.md
	@for script in $(SHORT_BENCHES); do echo "== $$script"; $(BIN)/python benchmarks/$$script || exit 1; done

docs: $(READY)  ## write docs/commands.md anew from the parsers
	@$(BIN)/python docs/commands.py

clean:  ## remove .venv and what the tools left behind
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
