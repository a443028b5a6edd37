# `make demo` and `make test` work on a clean clone: they create the environment and install what they need.
#
#   VENV=path       the environment to create and use (default .venv)
#   PYTHON=python3  the interpreter that creates it (Python 3.11 to 3.13)
#   PYTEST_ARGS=... passed on to pytest

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test check format clean

VENV ?= .venv
# Candidates in this order; the first of a supported version is taken.
PYTHON ?= python3 python3.13 python3.12 python3.11
DEMO_OUT ?= demo-out
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# What was installed into $(VENV), and from which state of these files: an up-to-date stamp is a no-op.
STAMP_CPU := $(VENV)/.msdm-cpu
STAMP_DEV := $(VENV)/.msdm-dev
REQUIREMENTS := pyproject.toml tools/constraints.txt
# Put into the folder by `make demo`, which deletes no folder without it.
DEMO_MARK := .made-by-make-demo

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  VENV=$(VENV) overrides the environment, PYTHON=... the interpreter that creates it"

demo: $(STAMP_CPU)  ## install the engine with its CPU runtime and write 16 pairs into demo-out
	@if [ -e "$(DEMO_OUT)" ] && [ ! -e "$(DEMO_OUT)/$(DEMO_MARK)" ]; then \
	  echo "$(DEMO_OUT) exists and was not made by 'make demo', so it is left alone." >&2; \
	  echo "  hint: move it away, or name another folder: make demo DEMO_OUT=demo-out-2" >&2; exit 1; fi
	@rm -rf "$(DEMO_OUT)"
	@status=0; \
	$(BIN)/msdm-engine demo --out "$(DEMO_OUT)" || status=$$?; \
	if [ -d "$(DEMO_OUT)" ]; then touch "$(DEMO_OUT)/$(DEMO_MARK)"; fi; exit $$status

test: $(STAMP_DEV)  ## install everything the tests need and run them
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(STAMP_DEV)  ## formatting, lint, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python tools/check_imports.py

format: $(STAMP_DEV)  ## rewrite the code as `make check` wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove caches and build outputs; environment, runs and generated pairs stay
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache
	find $(wildcard engine export calibration msdm_train benchmarks tests tools) -name __pycache__ -type d -prune -exec rm -rf {} +

# bin/pip comes last when an environment is made, so an interrupted attempt is made again.
$(BIN)/pip:
	@python=; for candidate in $(PYTHON); do \
	  if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; \
	  then python=$$candidate; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "msdm needs Python 3.11, 3.12 or 3.13." >&2; \
	  for candidate in $(PYTHON); do \
	    echo "  note: $$candidate is $$("$$candidate" --version 2>/dev/null || echo 'not found')" >&2; done; \
	  echo "  hint: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; fi; \
	echo "creating $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv "$(VENV)"

# The CPU runtime would overwrite an installed GPU runtime, see `cpu` and `gpu` in pyproject.toml.
define refuse_gpu_runtime
@if $(PIP) show --quiet onnxruntime-gpu 2>/dev/null; then \
  echo "$(VENV) holds onnxruntime-gpu, which the CPU runtime of this target would overwrite." >&2; \
  echo "  hint: make VENV=.venv-cpu $(MAKECMDGOALS)" >&2; exit 1; fi
endef

$(STAMP_CPU): $(REQUIREMENTS) | $(BIN)/pip
	$(refuse_gpu_runtime)
	@echo "installing msdm with '.[cpu]' into $(VENV), a few minutes the first time"
	@$(PIP) install -qq --constraint tools/constraints.txt --editable '.[cpu]'
	@touch $@

$(STAMP_DEV): $(REQUIREMENTS) | $(BIN)/pip
	$(refuse_gpu_runtime)
	@echo "installing msdm with '.[cpu,openvino,zarr,scale,train,export,calibrate,evaluate,rtx,cuda,dev]' into $(VENV), a few minutes the first time"
	@$(PIP) install -qq --constraint tools/constraints.txt --editable '.[cpu,openvino,zarr,scale,train,export,calibrate,evaluate,rtx,cuda,dev]'
	@touch $(STAMP_CPU) $@
