# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SOURCE ?=
DATA_ROOT ?=
CONSTRAINTS ?=

.PHONY: demo test test-oldest lint setup clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix -c ,$(CONSTRAINTS)) --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/dim-data demo $(SOURCE) $(if $(DATA_ROOT),--data-root $(DATA_ROOT))

test: setup
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

# The oldest versions that pyproject.toml admits, in an environment of their own (Python 3.10 or 3.11).
test-oldest:
	$(MAKE) test VENV=.venv-oldest CONSTRAINTS=tests/oldest.txt

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
