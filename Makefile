# The two commands of the README: `make demo` and `make test`. Each sets up its own
# virtual environment in .venv; nothing but Python >= 3.11 and make is needed.

PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.installed
KERAS_BACKENDS := tensorflow jax torch

.PHONY: demo test lint unit keras docs identity conformance bench clean

demo: $(SETUP)
	$(BIN)/arspec demo --output out/demo

test: $(SETUP)
	$(MAKE) --keep-going lint unit keras

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

unit: $(SETUP)
	$(BIN)/python -m pytest --ignore=tests/keras -n 2 --dist loadfile

# Keras has one backend per process.
keras: $(SETUP)
	failed=; for backend in $(KERAS_BACKENDS); do \
	  echo "Keras on $$backend"; \
	  KERAS_BACKEND=$$backend $(BIN)/python -m pytest tests/keras -n 2 --dist loadfile || failed="$$failed $$backend"; \
	done; test -z "$$failed" || { echo "Keras failed on$$failed"; exit 1; }

# The documentation as a site, in site/. The variable silences an advertisement.
docs: $(SETUP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(SETUP)

# Every penalty, dtype and mode against NumPy, bit by bit; IDENTITY=--quick is under a minute per backend.
identity: $(SETUP)
	$(BIN)/arspec identity --output out/identity.json $(IDENTITY)

# Every clause of the specification in every framework, then faults planted in each of them.
conformance: $(SETUP)
	$(BIN)/arspec conformance run --report out/conformance $(CONFORMANCE)
	$(BIN)/arspec conformance selftest

# What identity costs, as ratios; BENCH=--quick takes about three minutes.
bench: $(SETUP)
	$(BIN)/python benchmarks/run.py $(BENCH)

clean:
	rm -rf .venv out dist build site
