# Everything a newcomer or CI runs. `make demo` and `make test` set up what they need and stop with a sentence if they can't.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := faiss-cpu,postgres,milvus,milvus-lite,milvus-server,transformers,onnx,openvino,ray,dev
STAMP := $(VENV)/.installed
TESTS ?= tests
JOBS ?= auto

.PHONY: demo serve test test-slow lint format bench evaluate docs clean

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Precedent needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/precedent demo

serve: $(STAMP)
	$(BIN)/precedent serve

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) -m 'not slow' $(TESTS)

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow $(TESTS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python -m benchmarks.bench_open
	$(BIN)/python -m benchmarks.bench_indexing
	$(BIN)/python -m benchmarks.bench_encoders

evaluate: $(STAMP)
	$(BIN)/python -m benchmarks.evaluate_sets
	$(BIN)/python -m benchmarks.bench_adapt

docs: $(STAMP)
	$(BIN)/python -m docs.generate

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
