# Two commands are enough: `make demo` and `make test`. Both install what is missing into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/cpu.lock
DEV_LOCK := requirements/dev.lock
TORCH := $(shell sed -n 's/^torch==/torch==/p' $(LOCK) 2>/dev/null)
# On all cores, which pip does not; errors are those of files for other versions of Python. What is
# never imported, or in a few files only, is left out: a third of the work.
COMPILE := $(BIN)/python -W ignore -m compileall -qq -j 0 -x '/tests?/|/transformers/models/|/ray/' $(VENV)/lib
# Asked only where the configured package index has no CPU build of torch.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: demo test install dev lint fmt types layers unit slow lock train clean
.DEFAULT_GOAL := help

help: ## List the commands.
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' $(MAKEFILE_LIST) | column -t -s:

demo: install ## A real model on real vLLM answers a benchmark with and without Certaindex.
	$(BIN)/dynasor bench embedded --limit 75 --out runs/demo --fresh

test: lint types layers unit ## The whole check; what CI runs.

install: $(VENV)/.installed ## Install exactly the locked versions into .venv.

dev: $(VENV)/.dev-installed ## Install what tests, data and training need besides.

$(VENV)/.installed: $(LOCK) pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install -q --no-compile --no-deps '$(TORCH)' \
		|| $(BIN)/pip install -q --no-compile --no-deps --index-url $(TORCH_INDEX) '$(TORCH)'
	$(BIN)/pip install -q --no-compile --no-deps -r $(LOCK)
	$(BIN)/pip install -q --no-compile --no-deps --no-build-isolation -e .
	@$(COMPILE) || true
	@touch $@

$(VENV)/.dev-installed: $(DEV_LOCK) $(VENV)/.installed
	$(BIN)/pip install -q --no-compile --no-deps -r $(DEV_LOCK)
	@$(COMPILE) || true
	@touch $@

lint: dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: dev
	$(BIN)/mypy

layers: dev
	$(BIN)/lint-imports

unit: dev
	@# Three files at a time, for many tests wait; those of a file share their engine (see tests/conftest.py).
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

slow: dev ## The tests of rarer cases that `make test` leaves out.
	$(BIN)/pytest -m slow

fmt: dev ## Format the code and mend what ruff can.
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

lock: ## Resolve pyproject.toml anew and write the locked versions.
	$(PYTHON) requirements/lock.py

train: dev ## Train the embedded model from scratch (about an hour on 2 cores).
	$(BIN)/python -m dynasor.embedded_model.train --out runs/embedded_model

clean: ## Remove the virtual environment and the runs.
	rm -rf $(VENV) runs
