# `make demo` and `make test` are all that a newcomer needs; both set up .venv first.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test lint types lock

demo: .venv/ready
	$(BIN)/schn-ray demo --dir demo

test: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --ignore tests/cluster
	$(BIN)/pytest tests/cluster

# uv installs the same files as pip, many times faster
.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "schn-ray needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.lock)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

# after a change of dependencies: pins for all platforms, without addresses
lock: .venv/ready
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header \
	    --no-emit-index-url --all-extras pyproject.toml --output-file requirements.lock
