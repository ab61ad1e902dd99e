# Every target does its own set-up, in .venv of this clone, and nothing of it twice.

# Candidates, the first suitable one is taken: `make PYTHON=/path/to/python demo` names another.
PYTHON ?= python3 python3.13 python3.12 python3.11
# For example PYTEST_ARGS="-k rules". By file, because what a file sets up is dear; in the order of
# the command line, because the files with the longest tests have few.
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder

VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
RUN_STAMP := $(VENV)/.installed-run
DEV_STAMP := $(VENV)/.installed-dev

# At 2 TensorFlow still reports, as an error, that a machine without a GPU has none. What goes wrong
# reaches the user as a Python exception at any level.
export TF_CPP_MIN_LOG_LEVEL ?= 3

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-slow test-fuzz check lint format types imports docs docs-check
.PHONY: pages notebooks notebook-pages test-notebooks wheel-test clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(RUN_STAMP) ## train, evaluate, look, export and adapt, on images that need no download
	@tools/demo.sh $(VENV_PYTHON) runs/demo

test: $(DEV_STAMP) ## the tests, and the examples in the docstrings
	$(VENV_PYTHON) -m pytest $(PYTEST_ARGS)

test-slow: $(DEV_STAMP) ## the tests that take minutes
	$(VENV_PYTHON) -m pytest -m slow $(PYTEST_ARGS)

test-fuzz: $(DEV_STAMP) ## three hours of odd input: damaged images, folders, command lines
	$(VENV_PYTHON) tests/fuzz_pictures.py --seconds 1800
	$(VENV_PYTHON) tests/fuzz_folders.py --seconds 720
	$(VENV_PYTHON) tests/fuzz_flags.py --seconds 3600

check: lint types imports docs-check test test-notebooks wheel-test ## all that a change has to pass

lint: $(DEV_STAMP) ## style and likely mistakes
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .

format: $(DEV_STAMP) ## mend what `make lint` can mend by itself
	$(VENV_PYTHON) -m ruff check --fix .
	$(VENV_PYTHON) -m ruff format .

types: $(DEV_STAMP) ## type annotations
	$(VENV_PYTHON) -m mypy

imports: $(DEV_STAMP) ## who may import whom
	$(VENV)/bin/lint-imports --no-logo

docs: notebook-pages ## the site, on a port of this machine; pages that are changed are built again
	$(VENV)/bin/zensical serve

docs-check: notebook-pages ## the site built strictly, generated pages up to date, words spelt right
	$(VENV_PYTHON) tools/write_pages.py --check
	$(VENV)/bin/zensical build --strict --clean
	$(VENV)/bin/codespell

# Notebooks as pages of the site, with what they printed and drew when they were last run.
notebook-pages: $(DEV_STAMP)
	$(VENV_PYTHON) -m nbconvert --to markdown --output-dir docs/notebooks --log-level WARN notebooks/*.ipynb

notebooks: $(DEV_STAMP) ## run the notebooks and keep what they print and draw
	tools/run_notebooks.sh $(abspath $(VENV_PYTHON))

test-notebooks: $(DEV_STAMP) ## run the notebooks with tiny trainings, keep nothing
	$(VENV_PYTHON) tools/small_notebooks.py .cache
	TF_NUM_INTRAOP_THREADS=1 $(VENV_PYTHON) -m pytest --nbmake --nbmake-timeout=600 -n 2 \
		-p no:cacheprovider .cache/*.ipynb

pages: $(DEV_STAMP) ## write the pages and tables that follow from code and records
	$(VENV_PYTHON) tools/write_pages.py

wheel-test: $(DEV_STAMP) ## the wheel, built and tried in an empty folder
	@tools/try_wheel.sh $(VENV_PYTHON)

clean: ## remove all that make made, except the results in runs/
	rm -rf $(VENV) build dist site .cache docs/notebooks *.egg-info
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A demo needs no test tools, and whoever has those needs no second look for the demo: the second
# recipe serves both stamps.
$(RUN_STAMP): setup.cfg pyproject.toml tools/install.sh
	@tools/install.sh $(VENV) "." $(PYTHON)
	@touch $@

$(DEV_STAMP): setup.cfg pyproject.toml tools/install.sh
	@tools/install.sh $(VENV) ".[dev]" $(PYTHON)
	@touch $(RUN_STAMP) $@
