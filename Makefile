# What is run on a checkout, in the environment that PYTHON names. `make` lists it.
PYTHON = .venv/bin/python
PYTEST = $(PYTHON) -m pytest -q -n auto --dist loadfile

help:  ## List what there is
	@sed -n 's/^\([a-z-]*\): .*## /\1\t/p' Makefile | expand -t 14

install:  ## Make .venv, with everything that tests, lint and docs need
	python3 -m venv .venv && .venv/bin/pip install -q -e '.[test,docs]'

test:  ## Run the first tier of tests: every kind, each value of each parameter once
	$(PYTEST) -m "not slow"

test-slow:  ## Run all other tests
	$(PYTEST) -m slow

test-all:  ## Run all tests
	$(PYTEST)

lint:  ## Check style and types
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

bench:  ## Time this machine's devices beside other libraries
	$(PYTHON) -m gpugrad bench

docs:  ## Build the documentation site in docs/_build
	$(PYTHON) -m sphinx -W --keep-going docs docs/_build

.PHONY: help install test test-slow test-all lint bench docs
