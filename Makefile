# Each target sets up its own virtual environment in .venv first.
#   make threshold   threshold of the 1-layer MLP at 10,000 parameters, five repeats, into runs/
#   make test        lint, layers, types and tests
#   make test-sanitize, make test-arm   the engine's tests with sanitizers, on an emulated processor
#   make notebook    run the notebook again and redraw the figures from results/

PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help threshold test test-sanitize test-arm notebook

help:
	@sed -n '1,/^$$/s/^# *//p' Makefile

threshold: .venv/installed
	$(BIN)/python threshold_search/binary_search.py --model mlp --params 10000 --layers 1 \
		--results-dir runs/first-search

test: .venv/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

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

notebook: .venv/installed
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.record_timing=False visualizations/plots.ipynb

.venv/installed: requirements.txt pyproject.toml setup.py $(wildcard engines/native/*.cpp \
		engines/native/*.h) engines/native/build.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-for-tests: requirements-test.txt .venv/installed
	$(BIN)/pip install --disable-pip-version-check -r requirements-test.txt
	touch $@
