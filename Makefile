# Needs Python >= 3.11 (with pip and venv) and make; uses uv where it is installed.
#   make test        set up, then run the tests but the slow ones; make slow and make weekly run those
#   make reproduce   set up, then run the experiments; ARGS="--preset quick" goes to scripts/reproduce.py

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup reproduce test slow weekly lint docs bench

PYTHON ?= $(shell for name in python3 python3.12 python3.11 python3.13 python; do \
	if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$name; break; fi; done)
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.setup-stamp
EXTRAS ?= scripts,dev
ARGS ?=
# A worker takes neighbouring tests, which share compiled programs, until the other has none left.
PYTEST = $(RUN) -m pytest -n 2 --dist worksteal
# pinned: every version as in constraints.txt. oldest: the same with the oldest JAX that pyproject.toml allows. newest:
# whatever is newest today, JAX and all else.
JAX_RELEASE ?= pinned
CONSTRAINTS := $(VENV)/constraints.txt

help:  ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## Make .venv with the pinned versions (the other targets do it by themselves)

# Done anew when the project's needs change; a second call does nothing.
$(STAMP): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
		echo "error: Python >= 3.11 is needed; name one with 'make PYTHON=/path/to/python3.12 ...'" >&2; exit 1; fi
	@set -e; uv=; if command -v uv >/dev/null && uv --version >/dev/null 2>&1; then uv=1; fi; \
	if [ -x $(RUN) ]; then :; elif [ $$uv ]; then \
		uv venv --quiet --python "$$("$(PYTHON)" -c 'import sys; print(sys.executable)')" $(VENV); \
	else "$(PYTHON)" -m venv $(VENV); fi; \
	case "$(JAX_RELEASE)" in \
		pinned) cp constraints.txt $(CONSTRAINTS);; \
		oldest) oldest=$$(sed -nE 's/^ *"jax>=([0-9.]+)",$$/\1/p' pyproject.toml); \
			sed -E "s/^(jax|jaxlib)==.*/\1==$$oldest.0/" constraints.txt >$(CONSTRAINTS);; \
		newest) : >$(CONSTRAINTS);; \
		*) echo "error: JAX_RELEASE is pinned, oldest or newest, not $(JAX_RELEASE)" >&2; exit 1;; \
	esac; \
	if [ $$uv ]; then \
		uv pip install --quiet --python $(RUN) --constraints $(CONSTRAINTS) --build-constraints $(CONSTRAINTS) \
			--editable ".[$(EXTRAS)]"; \
	else \
		$(RUN) -m pip --version >/dev/null 2>&1 || $(RUN) -m ensurepip; \
		PIP_CONSTRAINT=$(CONSTRAINTS) $(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[$(EXTRAS)]"; \
	fi
	@touch $@

reproduce: $(STAMP)  ## Run the experiments; the report is runs/reproduce/report.html
	$(RUN) -m scripts.reproduce $(ARGS)

test: $(STAMP)  ## Run all tests and doctests but the slow ones
	$(PYTEST) -m "not slow and not weekly" $(ARGS)

slow: $(STAMP)  ## Run the slow tests
	$(PYTEST) -m "slow and not weekly" $(ARGS)

weekly: $(STAMP)  ## Run the tests that only the weekly gate has
	$(PYTEST) -m weekly $(ARGS)

lint: $(STAMP)  ## Check style, formatting and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m basedpyright

docs: $(STAMP)  ## Build the reference and the guide; they begin at docs/index.html
	$(RUN) .ci/build_docs.py $(ARGS)

bench: $(STAMP)  ## Run all benchmarks; they measure, print a table and write JSON
	@set -e; for script in $$(grep -l '__name__ == "__main__"' benchmarks/*.py); do \
		echo "== $$script"; $(RUN) -m "benchmarks.$$(basename "$$script" .py)" $(ARGS); done
