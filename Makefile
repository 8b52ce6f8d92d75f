# Everything on a fresh machine with Python 3.11+ and make: the first target makes .venv and installs into it.

ifndef PYTHON
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; break; fi; done)
endif

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
SYSTEM := $(VENV)/.system

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test check bench mutants torture clean

help: ## This list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## */|/' | awk -F'|' '{printf "  make %-9s %s\n", $$1, $$2}'

$(READY): pyproject.toml tools/venv.sh
	@sh tools/venv.sh "$(PYTHON)" "$(VENV)"
	@touch $@

# What some tests use besides Python packages; without it they skip with one line.
$(SYSTEM): tools/system.sh | $(READY)
	@sh tools/system.sh
	@touch $@

demo: $(READY) ## Index the standard library while the worker is killed twice (ARGS="--files 300 --kills 3" or "--nodes 3")
	@$(PY) -m stateroom demo $(ARGS)

test: $(READY) $(SYSTEM) ## The whole test suite (ARGS="-k feed")
	$(PY) -m pytest -n 2 $(ARGS)

check: $(READY) ## Lint, format, types, layers, sizes
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pyright --pythonpath $(PY)
	$(PY) -m pytest tests/unit/test_form.py tests/unit/test_layers.py

bench: $(READY) ## Measure, and print tables (ARGS="engine" for one of them)
	@$(PY) bench/run.py $(ARGS)

mutants: $(READY) $(SYSTEM) ## Put one-line defects into every room: do the tests notice? (ARGS="retention" for some of them)
	@cd tests && ../$(PY) -m mutants $(ARGS)

torture: $(READY) $(SYSTEM) ## Long crash and race tests
	$(PY) -m pytest -m torture -n 2 --timeout 1800 $(ARGS)

clean: ## Remove .venv and everything that was built
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
