# Needs Python 3.11 or later, make and a network; everything else is put into .venv.
# Another interpreter: make test PYTHON=/path/to/python3

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# A file stays on one worker: its fixtures train small ensembles, once.
PYTEST_ARGS ?= -n auto --dist loadfile

export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test lint format clean

demo: .venv/.stamp
	$(BIN)/python -m lumbar_tf.demo

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS) --doctest-modules lumbar_tf tests

lint: .venv/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Made again whenever a range or a pin changes.
.venv/.stamp: setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache
