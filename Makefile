# `make demo`, `make test` and `make docs`, and `make quick` between two edits. All set up everything they need.
# `make test-all` runs every test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= runs/demo
DEMO_FLAGS ?=
TEST_JOBS ?= 2
# The environment keeps its bytecode, whatever the shell says: each process and each test would compile PyTorch again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-all quick lint slow docs newer golden clean

# The sample is made while the run starts, which waits for it.
demo: $(VENV)/.installed
	@$(BIN)/stbench sample > /dev/null & \
	$(BIN)/stbench run --method majority --method nearest-mean --method spectralx --benchmark all --out $(OUT) $(DEMO_FLAGS)
	$(BIN)/stbench report --records $(OUT)
	@echo; echo "The board (synthetic sample): $(OUT)/tables/board-sample.md, and $(OUT)/site/index.html"
	@$(BIN)/python docs/demo_lines.py $(OUT)/tables/board-sample.csv

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_JOBS)

# Lint, types and the tests of what was touched, in a minute.
quick: $(VENV)/.installed-dev
	$(BIN)/python tests/quick.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# One file in one process: some start servers.
slow: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_JOBS) --dist loadfile -m slow

test-all: test slow

# The documentation as a site in build/docs, which opens from disk. A link or anchor that leads nowhere ends it (not with --quiet).
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "the documentation: build/docs/index.html"

# The data and command-line tests alone, as CI runs them on a newer Python (with another TorchGeo).
newer: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(TEST_JOBS) tests/data tests/sample tests/test_benchmarks.py \
		tests/test_bad_input.py tests/cli tests/api tests/runner tests/models tests/protocol tests/golden/test_golden.py \
		tests/spectralx/test_parity.py tests/methods/test_peft_methods.py tests/methods/adapters

# Golden values whose numerics version was raised, of one component (COMPONENT="method lora") or of all.
golden: $(VENV)/.installed-dev
	$(BIN)/python -W ignore tests/golden/write.py $(if $(COMPONENT),"$(COMPONENT)")

$(VENV)/.installed: pyproject.toml spectral_tl_bench/__init__.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python .ci/install.py
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python .ci/install.py dev
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python .ci/install.py docs
	touch $@

clean:
	rm -rf $(VENV) build runs .pytest_cache .mypy_cache .ruff_cache
