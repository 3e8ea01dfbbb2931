# Each target sets up its own virtual environment in .venv first.
#   make threshold   threshold of the 1-layer MLP at 10,000 parameters, five repeats, into runs/
#   make test        lint, layers, types and tests; make lint: without the tests
#   make test-sanitize, make test-arm   the engine's tests with sanitizers, on an emulated processor
#   make test-ray    of these, searches on a Ray cluster of two nodes; slow beside other work
#   make notebook    run the notebook again and redraw the figures from results/
#   make docs        build/site/index.html; fails at a link that leads nowhere
#   make lock        requirements-lock.txt after a change of requirements.txt or pyproject.toml

PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help threshold lint test test-sanitize test-arm test-ray notebook docs lock

help:
	@sed -n '1,/^$$/s/^# *//p' Makefile

threshold: .venv/installed
	$(BIN)/python threshold_search/binary_search.py --model mlp --params 10000 --layers 1 \
		--results-dir runs/first-search

# The hooks of .pre-commit-config.yaml are these four lines.
lint: .venv/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
	$(MAKE) test-ray

# Python itself is not instrumented, so the sanitizer's library has to be loaded before it; leaks
# cannot be told from what Python keeps.
LIBRARY := engine.so
SANITIZED := build/sanitized/$(LIBRARY)
test-sanitize: .venv/installed-for-tests
	mkdir -p build/sanitized
	$(BIN)/python engines/native/build.py $(SANITIZED) -O1 -g -fsanitize=address,undefined \
		-fno-sanitize-recover=all
	export ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$$(c++ -print-file-name=libasan.so)" \
		MEMORIZATION_ENGINE=$(SANITIZED); \
	$(BIN)/python -c "import sys; from engines.native.load import *; sys.exit(not load_engine())" \
		&& $(BIN)/pytest tests/test_native_kernels.py tests/test_native_mlp.py \
		tests/test_native_transformer.py

# Needs aarch64-linux-gnu-g++ and qemu-aarch64.
test-arm: .venv/installed-for-tests
	command -v aarch64-linux-gnu-g++ && command -v qemu-aarch64
	$(BIN)/pytest -m arm tests/test_arm.py

# With nothing beside these two: tests end workers, each of which takes seconds of a CPU to start.
test-ray: .venv/installed-for-tests
	$(BIN)/pytest -n 2 --dist loadfile -m ray tests/test_executors.py tests/test_own_ray.py

notebook: .venv/installed
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.record_timing=False visualizations/plots.ipynb

docs: .venv/installed-for-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# For every Python and system at once. Versions that still fit stay; without the file all are new.
lock: .venv/installed
	$(BIN)/pip install --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate \
		--no-emit-index-url --no-emit-package memorization-thresholds --all-extras \
		--custom-compile-command "make lock" --output-file requirements-lock.txt \
		requirements.txt pyproject.toml

.venv/installed: EXTRAS := notebook
.venv/installed-for-tests: EXTRAS := test,ray
.venv/installed-for-docs: EXTRAS := docs
.venv/installed .venv/installed-for-tests .venv/installed-for-docs: pyproject.toml setup.py \
		requirements-lock.txt $(wildcard engines/native/*.cpp engines/native/*.h) \
		engines/native/build.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -e '.[$(EXTRAS)]' -c requirements-lock.txt
	touch $@
