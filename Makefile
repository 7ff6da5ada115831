PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow bench lint format clean

help: ## say what each target does
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("nfi_pyro needs Python 3.11 or later; set PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all]" --group dev
	touch $(STAMP)

demo: $(STAMP) ## fit 20 real stocks and write reports/demo.html
	rm -rf inference/runs/demo
	$(BIN)/nfi demo --run inference/runs/demo --out reports/demo.html

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint ## lint, types and the tests, under ten minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope -m "not slow" tests

test-slow: $(STAMP) ## the longer checks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope -m slow tests

bench: $(STAMP) ## speed as ratios; a process for each file, so that none warms another's memory
	@failed=; for file in tests/benchmarks/bench_*.py; do \
	  OMP_NUM_THREADS=1 $(BIN)/python -m pytest $$file -q -s -o python_files='bench_*.py' \
	    -o pythonpath=. || failed="$$failed $$file"; \
	done; test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

format: $(STAMP) ## let ruff write
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what was built, not the runs
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache
