# Needs Python 3.11 or later, make and a network; everything else is put into .venv, and for `make test-tfio`
# into .venv-tfio (3 GB; Python 3.11 or 3.12); for `make test-serving` into .venv-serving.
# Another interpreter: make test PYTHON=/path/to/python3

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# A file stays on one worker, so that its fixtures are made once; tests/conftest.py gives the order.
PYTEST_ARGS ?= -n auto --dist loadfile --no-loadscope-reorder

export TF_CPP_MIN_LOG_LEVEL ?= 2

# TensorFlow's wheel that `make test-serving` replays a bundle with.
SERVING_TENSORFLOW ?= 2.19.1
# The bundle: `make demo` leaves one there.
BUNDLE ?= demo/models/1

# OHIF's built pages, from the npm registry (MIT licence), and the digest of the package.
OHIF ?= 3.12.10
OHIF_SHA256 ?= fbabd410be33e5b9898931b725229b9da9553aac339914b5c29796d3aa5d4b2d

.PHONY: demo pretrained check test test-tools test-tfio test-serving test-viewers docs lint format clean

demo: .venv/.stamp
	$(BIN)/python -m lumbar_tf.demo

# The ensemble that the package grades with by default, from synthetic studies; run it again to go on.
pretrained: .venv/.stamp
	$(BIN)/python -m lumbar_tf.pretrain

# Lint, types and the tests that need no training, export, browser, cluster or process: see tests/conftest.py.
check: lint
	$(BIN)/python -m pytest -q $(PYTEST_ARGS) -m "not slow" tests

# Everything. What is trained is kept in .pytest_cache for the next run with the same sources.
test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS) --doctest-modules lumbar_tf tests

# A browser, a PACS and npm, from Debian's packages, as root. Without them the tests that need them are skipped.
test-tools:
	command -v chromium >/dev/null && command -v Orthanc >/dev/null || \
	(apt-get update -q && apt-get install -yq --no-install-recommends chromium orthanc orthanc-dicomweb)
	command -v npm >/dev/null || apt-get install -yq --no-install-recommends npm

# tensorflow-io loads with TensorFlow 2.17 only, so it has an environment of its own.
test-tfio: .venv-tfio/.stamp
	.venv-tfio/bin/python -m pytest tests/tfio

# The loader in C++ against this environment's TensorFlow and another: make test-serving BUNDLE=models/lumbar/1
test-serving: .venv/.stamp .venv-serving/.stamp
	$(BIN)/python -m tests.serving.loader $(BUNDLE)
	$(BIN)/python -m tests.serving.loader $(BUNDLE) --python=.venv-serving/bin/python

# The structured report in OHIF, which only this target fetches (46 MB); needs npm and what `make test-tools` installs.
test-viewers: .venv/.stamp .ohif/$(OHIF)
	$(BIN)/python -m pytest tests/viewers

# The pages and the API reference as a site that loads nothing from anywhere: open site/index.html
docs: .venv/.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

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

.venv-tfio/.stamp: setup.py constraints-tfio.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13) and "Python 3.11 or 3.12 is needed")'
	$(PYTHON) -m venv .venv-tfio
	.venv-tfio/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-tfio.txt -e '.[tfio]' hypothesis pytest
	touch $@

.venv-serving/.stamp: Makefile
	$(PYTHON) -m venv .venv-serving
	.venv-serving/bin/python -m pip install --quiet --disable-pip-version-check 'tensorflow==$(SERVING_TENSORFLOW)'
	touch $@

.ohif/%:
	rm -rf .ohif && mkdir .ohif
	cd .ohif && npm pack --silent @ohif/app@$* && echo "$(OHIF_SHA256)  ohif-app-$*.tgz" | sha256sum --check --quiet
	tar -xzf .ohif/ohif-app-$*.tgz -C .ohif && rm .ohif/ohif-app-$*.tgz
	touch $@

clean:
	rm -rf .ohif .venv .venv-serving .venv-tfio build site *.egg-info .mypy_cache .pytest_cache .ruff_cache
