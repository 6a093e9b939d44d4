# All that is needed is make and a Python of 3.11 or newer: each target makes the environment that it runs in,
# .venv, and installs into it what that target needs and no more, again whenever pyproject.toml has changed.
#
#   make test                          the whole suite
#   make test ARGS="-k generator -x"   ARGS is passed on to what the target runs
#   make demo PYTHON=python3.12        the Python that the environment is made with

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SPHINX := $(BIN)/sphinx-build -q -W --keep-going -d doc/_build/doctrees

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup demo gallery test lint bench doc clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.installed-dev $(VENV)/.installed-doc $(VENV)/.installed-bench ## the environment, with all that is used here

demo: $(VENV)/.installed ## real work, spread over the cores and checked
	$(BIN)/python examples/standard_library.py $(ARGS)

gallery: $(VENV)/.installed-examples ## the programs in examples/, their pictures into gallery/
	$(BIN)/python doc/make_pictures.py --output gallery $(ARGS)

test: $(VENV)/.installed-test ## the whole suite, and the examples in the docstrings
	$(BIN)/pytest -q -n 3 --dist worksteal --doctest-modules parallel_core memmapping tests $(ARGS)

lint: $(VENV)/.installed-dev ## style, types and layers
	$(BIN)/ruff check $(ARGS) .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --config setup.cfg

bench: $(VENV)/.installed-bench ## speed, beside the other libraries
	$(BIN)/python -m benchmarks --picture $(ARGS)

doc: $(VENV)/.installed-doc ## the documentation into doc/_build/html, its examples tried
	$(SPHINX) -b html $(ARGS) doc doc/_build/html
	$(SPHINX) -b doctest doc doc/_build/doctest

clean: ## remove the environment and everything that was built
	@if [ -f '$(VENV)/pyvenv.cfg' ]; then rm -rf '$(VENV)'; fi
	rm -rf build dist gallery *.egg-info doc/_build
	rm -rf .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache
	@for folder in parallel_core memmapping examples tests benchmarks doc; do \
	    if [ -d $$folder ]; then find $$folder -name __pycache__ -type d -prune -exec rm -rf {} +; fi; \
	done

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo >&2; \
	    echo >&2 'Python 3.11 or newer is needed, and "$(PYTHON)" is not one that runs.'; \
	    echo >&2 'Name one: make ... PYTHON=python3.12'; \
	    exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' && $(PYTHON) -m venv $(VENV) || { \
	    echo >&2; \
	    echo >&2 'No environment could be made with "$(PYTHON) -m venv". Some systems package what it needs apart:'; \
	    echo >&2 '  Debian, Ubuntu:  apt install python3-venv   (python3.12-venv and so on for another Python)'; \
	    echo >&2 '  openSUSE:        zypper install python3-pip python3-setuptools'; \
	    echo >&2 '  elsewhere:       a Python from python.org or pyenv has it'; \
	    exit 1; }
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.made
	@echo 'Installing parallel-core into $(VENV)'
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.installed-%: pyproject.toml $(VENV)/.made
	@echo 'Installing parallel-core[$*] into $(VENV)'
	@$(PIP) install --editable '.[$*]'
	@touch $@
