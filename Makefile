# Every target does its own set-up: system packages, virtual environment, build. The first run takes
# a while; later ones redo only what has changed.
#
#   make demo      real traffic through lbfwd in network namespaces (root or ordinary user)
#   make test      linters and tests, without the slow ones (root)
#   make test-all  the slow ones, too
#   make test-vm   some on Debian's own kernel in a virtual machine; it downloads 70 MB (root)
#   make bench     the benchmarks, their figures in the documents, the table of targets (root)
#   make deb       a Debian package for this machine's release, in dist/
#   make lint | build | dist | clean
#
# PYTHON=python3.12 chooses the interpreter, CC=clang the compiler, PYTEST_ARGS="-k guard" the tests,
# BENCH_ARGS="path tables" the benchmarks.

SHELL := /bin/bash
.SHELLFLAGS := -euc
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all test-vm bench lint build dist deb clean root

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
PREREQUISITES := deploy/prerequisites.sh
C_FILES := $(filter-out lbfwd/_ringlib.c, $(wildcard lbfwd/*.c))
# Tests that have nothing in common with each other: two run at a time.
SIDE_BY_SIDE := tests/fuzz tests/packet tests/unit
C_LINT := -std=gnu11 -O2 -Wall -Wextra -Werror -fno-strict-aliasing -Ilbfwd -c -o /dev/null

help:
	@sed -n 's/^#   \(make .*\)/\1/p' Makefile

demo: build
	@$(PREREQUISITES) demo
	@$(BIN)/lbfwd demo

test: root lint
	@$(PREREQUISITES) demo test
ifdef PYTEST_ARGS
	@$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)
else
	@$(BIN)/python -m pytest -m "not slow" -n 2 $(SIDE_BY_SIDE)
	@$(BIN)/python -m pytest -m "not slow" $(addprefix --ignore=,$(SIDE_BY_SIDE))
endif

test-all: test
	@$(PREREQUISITES) deb
	@$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

test-vm: root build $(VENV)/.stamp-dev
	@$(PREREQUISITES) demo test vm
	@$(BIN)/python -m pytest tests/vm $(PYTEST_ARGS)

bench: root build $(VENV)/.stamp-bench
	@$(PREREQUISITES) demo test bench
	@$(BIN)/python -m bench $(BENCH_ARGS)

lint: build $(VENV)/.stamp-dev $(VENV)/.stamp-bench # mypy reads the benchmarks, too
	@$(PREREQUISITES) test
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary lbfwd workers bench
	@for compiler in gcc clang; do \
	    for file in $(C_FILES) $(wildcard bench/*.c); do $$compiler $(C_LINT) $$file; done; \
	done

build: $(VENV)/.stamp-build

dist: $(VENV)/.stamp-dev
	@rm -rf dist
	@$(BIN)/python -m build >dist.log 2>&1 || { cat dist.log >&2; exit 1; }
	@rm dist.log
	@ls dist/*

deb: dist
	@$(PREREQUISITES) deb
	@deploy/debian/build.sh

clean:
	rm -rf $(VENV) build dist dist.log *.egg-info lbfwd/_ringlib.*
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

root:
	@if [ "$$(id -u)" != 0 ]; then \
	    echo "make $(MAKECMDGOALS): it makes network namespaces and needs root: sudo make $(MAKECMDGOALS)" >&2; \
	    exit 1; \
	fi

$(VENV)/.stamp-venv:
	@$(PREREQUISITES) build
	@"$$($(PREREQUISITES) python)" -m venv $(VENV)
	@touch $@

$(VENV)/.stamp-build: $(VENV)/.stamp-venv pyproject.toml setup.py lbfwd/_ring_build.py \
    $(C_FILES) $(wildcard lbfwd/*.h)
	@echo "building lbfwd (this takes a while the first time)"
	@$(PIP) install --editable .
	@touch $@

# The tools of an optional dependency: dev, bench.
$(VENV)/.stamp-dev $(VENV)/.stamp-bench: $(VENV)/.stamp-%: $(VENV)/.stamp-venv pyproject.toml
	@echo "installing the tools: $*"
	@$(PIP) install $$($(BIN)/python -c 'import tomllib; \
	    print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["$*"])')
	@touch $@
