# `make demo` and `make test` are all that a newcomer needs; both set up .venv first.
PYTHON ?= python3
BIN = .venv/bin
WITHOUT_RAY = OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --ignore tests/cluster
ON_RAY = $(BIN)/pytest tests/cluster

.PHONY: demo test test-slow test-all lint types lock docs
.NOTPARALLEL:

demo: .venv/ready
	$(BIN)/schn-ray demo --dir demo

# what every change must pass, in minutes. The budgets are seconds of CPU time, which a busy
# machine needs more of for the same work: with two cores some 400, and 120
test: lint types
	$(WITHOUT_RAY) -m "not slow" --cpu-budget 600
	$(ON_RAY) -m "not slow" --cpu-budget 240

# the tests that `make test` leaves out
test-slow: .venv/ready
	$(WITHOUT_RAY) -m slow
	$(ON_RAY) -m slow

test-all: test test-slow

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy

# the documentation site, with a search; a link that leads nowhere is an error
docs: .venv/ready
	$(BIN)/sphinx-build -q -W --keep-going -c docs . build/site
	@echo "build/site/index.html: open it in a browser"

# uv installs the same files as pip, many times faster. It compiles them: otherwise each process of a
# test compiles torch and Ray for itself, in 2 to 6 s of CPU time
.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "schn-ray needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.lock)"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

# after a change of dependencies: pins for all platforms, without addresses. The trackers are left
# out: they are large, and trackio needs an older Pillow
LOCKED = bench dev docs duckdb heic hf hub lance map onnx open-clip photos ray sqlite tensorboard timm
lock: .venv/ready
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header \
	    --no-emit-index-url $(addprefix --extra ,$(LOCKED)) pyproject.toml --output-file requirements.lock
