.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install demo serve test test-slow bench bench-peers lint format types migrate openapi clean

help: ## list every target
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml requirements/dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements/dev.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

install: $(VENV)/.installed ## make .venv with everything pinned

demo: install ## start the service, compress a real model through the public API, print before / after
	$(BIN)/python examples/fashion/demo.py

serve: install ## migrate, then broker, API and one worker; Ctrl-C stops them
	$(BIN)/rankfold serve

test: install ## everything but the slow tests
	$(BIN)/pytest

test-slow: install ## the slow tests: real cases, faults, big uploads
	$(BIN)/pytest -m slow

bench: install ## the benchmarks
	$(BIN)/python -m benchmarks

bench-peers: install ## us against the peers on the package index; writes docs/results.md (about an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.peers

lint: install ## style, types and import walls
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

migrate: install ## bring the database to the newest schema
	$(BIN)/rankfold migrate

openapi: install ## write the golden OpenAPI and report schemas anew
	$(BIN)/python -m tests.golden

clean: ## remove the environment and the local state
	rm -rf $(VENV) var
