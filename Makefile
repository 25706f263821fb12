# The commands of the project. Needs: python3 >= 3.11, make, a package index. Everything else is installed here.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export PYTHONPATH := layers/storage_cleanup:.
EVENT  ?= events/scheduled.json

.DEFAULT_GOAL := help
.PHONY: help demo test check format test-contract invoke lock clean

help:            ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

demo: $(VENV)/.ready        ## the whole system on the embedded stack, from nothing to a checked run
	@$(BIN)/python -m local.demo

test: $(VENV)/.ready        ## every test
	@$(BIN)/python -m pytest

check: $(VENV)/.ready       ## formatting, linting, types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(VENV)/.ready      ## rewrite the code as ruff wants it
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

test-contract: $(VENV)/.ready ## replay the recorded Storage contract against SUPABASE_URL, or the emulator when unset
	@$(BIN)/python -m pytest tests/contract

invoke: $(VENV)/.ready      ## one event (EVENT=events/X.json) through the real handler
	@$(BIN)/python -m local.invoke $(EVENT)

lock: $(VENV)/.ready        ## resolve the requirements again and rewrite the locks
	@sh requirements/lock.sh

clean:                       ## remove everything that was installed or built here
	rm -rf .venv .venv-* .stack .aws-sam build

$(VENV)/.ready: requirements/dev.txt
	@echo "Installing into $(VENV) (first time: about a minute) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on --require-hashes -r requirements/dev.txt | grep -E '^(Collecting|Installing|Successfully)' | cut -c1-70
	@touch $@
