# Each target sets up its own virtual environment in .venv first.
#   make threshold   threshold of the 1-layer MLP at 10,000 parameters, five repeats, into runs/
#   make test        lint and tests
#   make notebook    run the notebook again and redraw the figures from results/

PYTHON ?= python3
BIN := .venv/bin

.PHONY: threshold test notebook

threshold: .venv/installed
	$(BIN)/python threshold_search/binary_search.py --model mlp --params 10000 --layers 1 \
		--results-dir runs/first-search

test: .venv/installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pytest

notebook: .venv/installed
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.record_timing=False visualizations/plots.ipynb

.venv/installed: requirements.txt pyproject.toml setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -r requirements.txt
	touch $@

.venv/installed-for-tests: requirements-test.txt .venv/installed
	$(BIN)/pip install --disable-pip-version-check -r requirements-test.txt
	touch $@
