# The three commands of the README. Everything is installed into .venv, from constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint laws bench clean

demo: .venv/.installed
	$(BIN)/gossamer demo $(ARGS)

test: .venv/.installed-test
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

lint: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests benchmarks
	PYTHONPATH=.editable $(BIN)/lint-imports

bench: .venv/.installed-bench
	$(BIN)/python benchmarks/engines.py $(ARGS)
	$(BIN)/python benchmarks/lifecycle.py $(ARGS)
	$(BIN)/python benchmarks/serving.py $(ARGS)
	$(BIN)/python benchmarks/search.py $(ARGS)
	$(BIN)/python benchmarks/encode.py $(ARGS)
	$(BIN)/python benchmarks/splade_head.py $(ARGS)
	$(BIN)/python benchmarks/gpu.py $(ARGS)

# The data-structure laws on another interpreter, with no more than they need: make laws PYTHON=python3.13
laws: VENV := .venv-laws-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
laws:
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -c constraints.txt numpy scipy pyarrow numba pydantic hypothesis pytest
	$(VENV)/bin/python -m pytest tests/laws

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gossamer needs Python 3.11 or newer; name one: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -c constraints.txt -e .
	touch $@

.venv/.installed-test: .venv/.installed
	$(BIN)/pip install -c constraints.txt -e '.[test]'
	touch $@

.venv/.installed-bench: .venv/.installed-test
	$(BIN)/pip install -c constraints.txt -e '.[test,bench]'
	touch $@

clean:
	rm -rf .venv .venv-laws-* demo-output
