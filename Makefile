.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
FIGURES := docs/explanation/performance.json

.PHONY: help install demo test unit lint format typecheck bench load faults soak docs clean

help: ## List every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Set up .venv with the package and its development tools

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; choose one with make PYTHON=…") if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(INSTALLED) ## Start the embedded server, ingest real passages, answer real questions
	@$(BIN)/kb demo

test: lint typecheck ## Run everything that CI runs
	$(BIN)/python -m pytest tests --ignore=tests/benchmarks --ignore=tests/soak --ignore=tests/load -n 3 --dist loadfile --cov --cov-report=term

unit: $(INSTALLED) ## Run the tests that need no server
	$(BIN)/python -m pytest tests/unit

lint: $(INSTALLED) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED) ## Rewrite the code in house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(INSTALLED) ## Check types, strictly
	$(BIN)/mypy

bench: $(INSTALLED) ## Run the benchmarks of a quarter of an hour and write their figures into the docs; ARGS=all for every one
	@rm -f $(FIGURES)
	$(BIN)/python -m tests.benchmarks $(ARGS) --json $(FIGURES)
	$(BIN)/python -m tests.benchmarks.speed.page $(FIGURES)

load: $(INSTALLED) ## Ask a slow embedding endpoint with up to 500 callers; ARGS=--memory for 100 000 questions
	$(BIN)/python -m tests.load $(ARGS)

faults: $(INSTALLED) ## Break everything on purpose and write the fault matrix into the docs
	$(BIN)/python -m tests.faults.matrix --write

soak: $(INSTALLED) ## Run mixed load with faults for an hour; MINUTES=10 for less
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),60)

docs: $(INSTALLED) ## Regenerate the reference pages that come from the code
	$(BIN)/python docs/generate_settings.py

clean: ## Remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
