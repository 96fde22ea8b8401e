# Everything a newcomer or CI runs. `make demo` and `make test` set up what they need and stop with a sentence if they can't.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := faiss-cpu,onnx
ALL_EXTRAS := $(EXTRAS),postgres,milvus,milvus-lite,milvus-server,transformers,openvino,ray,answers,langchain,llama-index,mcp,radbench,bench,dev
STAMP := $(VENV)/.installed
ALL := $(VENV)/.installed-all
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e
TESTS ?= tests
JOBS ?= auto

.PHONY: demo serve test test-slow lint format bench bench-search evaluate docs clean

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Precedent needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) '.[$(EXTRAS)]'
	@touch $(STAMP)

$(ALL): $(STAMP) # the optional engines too, and what tests need
	$(INSTALL) '.[$(ALL_EXTRAS)]'
	@touch $(ALL)

demo: $(STAMP)
	$(BIN)/precedent demo

serve: $(STAMP)
	$(BIN)/precedent serve

test: $(ALL)
	$(BIN)/python -m pytest -n $(JOBS) -m 'not slow' $(TESTS)

test-slow: $(ALL)
	$(BIN)/python -m pytest -m slow $(TESTS)

lint: $(ALL)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(ALL)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(ALL)
	$(BIN)/python -m benchmarks.bench_open
	$(BIN)/python -m benchmarks.bench_indexing
	$(BIN)/python -m benchmarks.bench_encoders

bench-search: $(ALL)
	$(BIN)/python -m benchmarks.report search

evaluate: $(ALL)
	$(BIN)/python -m benchmarks.evaluate_sets
	$(BIN)/python -m benchmarks.bench_adapt

docs: $(ALL)
	$(BIN)/python -m docs.generate

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
