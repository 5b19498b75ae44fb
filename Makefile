.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BENCH := .venv-benchmarks
BIN := $(VENV)/bin
# As in jobs: workers/child.py says why.
export THP_MEM_ALLOC_ENABLE := 1
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT := 1000

.PHONY: help install demo serve test test-slow bench bench-formats bench-language-model bench-selections bench-ablation bench-stages bench-peers bench-greedy bench-intake lint format types migrate openapi clean

help: ## list every target
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-20s %s\n", $$1, $$2}'

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

test: install ## everything but the slow tests, in two processes
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist worksteal

test-slow: install ## the slow tests: real cases, faults, big uploads, hostile files, changed files
	$(BIN)/pytest -m slow

bench: install ## the benchmarks
	$(BIN)/python -m benchmarks

$(BENCH)/.installed: pyproject.toml requirements/worker.txt requirements/benchmarks.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --requirement requirements/worker.txt
	$(BENCH)/bin/pip install --quiet --no-deps --requirement requirements/benchmarks.txt
	$(BENCH)/bin/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

bench-language-model: $(BENCH)/.installed ## a language model at 0.8, in docs/results.md; long
	$(BENCH)/bin/python -m benchmarks.language_model

bench-formats: $(BENCH)/.installed ## files of many makers through whole jobs, in docs/formats.md; CASES="folder folder", or the example
	OMP_NUM_THREADS=1 $(BENCH)/bin/python -m benchmarks.formats $(or $(CASES),examples/fashion)

bench-selections: install ## selections of ranks against each other, in docs/results.md; CASES=folder, or the example
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.selections $(CASES)

bench-ablation: install ## what each step of a job gains, in docs/results.md; CASES="folder folder", or the example; long
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.ablation $(CASES)

bench-stages: install ## how long the stages of a job take, in docs/results.md; ONLY=ResNet-18 for one network
	$(BIN)/python -m benchmarks.stages $(if $(ONLY),--only $(ONLY)) $(if $(CASE),--case $(CASE))

bench-peers: install ## us against the peers on the package index, in docs/results.md; long
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.peers --cases examples/fashion $(CASES)

bench-greedy: install ## the time of aimet-torch's greedy choice of ranks over ours, in docs/results.md
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.peers.greedy --cases examples/fashion $(CASES)

bench-intake: install ## what looking at an upload of 500 MB takes, and what others notice, in docs/results.md
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.intake

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

openapi: install ## write the golden OpenAPI and report schemas, and the tables of operators and model types, anew
	$(BIN)/python -m tests.golden

clean: ## remove the environment and the local state
	rm -rf $(VENV) $(BENCH) var
