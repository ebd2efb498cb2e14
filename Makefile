# Everything runs in a virtual environment of its own, .venv, made on first use.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check bench proto clean

help: ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

$(STAMP): pyproject.toml constraints.txt packaging/hatch_build.py $(wildcard proto/autotune/v1/*.proto)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "autotune needs Python 3.11 or newer; run: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "Python cannot make a virtual environment; on Debian: apt install python3-venv"; exit 1; }
	@echo "Setting up .venv (once)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable . --group dev
	@touch $(STAMP)

demo: $(STAMP) ## start the daemon, ask the pocket model a question, show its numbers
	@$(BIN)/python packaging/demo.py

check: $(STAMP) ## formatting, lint, types, import contracts, protos
	@$(BIN)/ruff format --check --quiet . || { echo "run: .venv/bin/ruff format ."; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache > .venv/imports.log || { cat .venv/imports.log; exit 1; }
	@cd proto && ../$(BIN)/buf lint
	@echo "check: clean"

test: check ## every check and every test, two files at a time
	@$(BIN)/python -m pytest --quiet --numprocesses 2 --dist loadfile

bench: $(STAMP) ## measure; prints tables and saves them as JSON
	@$(BIN)/python -m tests.bench

proto: $(STAMP) ## generate the stubs again
	@$(BIN)/python packaging/hatch_build.py

clean: ## remove what the targets above made
	@rm -rf .venv build dist clients/python/autotune/v1 .mypy_cache .pytest_cache .ruff_cache .hypothesis
