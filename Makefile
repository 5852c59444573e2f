# Every target does its own set-up: a virtual environment, and the pinned packages of constraints.txt.
# Set-up is done once, and again when pyproject.toml or constraints.txt changes.

PYTHON ?= python3
VENV ?= .venv
GIN ?= recipes/cn_onset_gvf.gin
ARGS ?=
WORKERS ?= 2
TORCH ?= torch==2.13.0
WHEELS ?= wheels
BENCH_PACKAGES := accelerate av diffusers einops gin-config opencv-python-headless pillow safetensors scipy soundfile tqdm
SCALE ?= paper
BATCH ?= 1
STEPS ?= 20
ROUNDS ?= 5
RUNGS ?=
MINUTES ?= 9
RESULTS ?= gpu-results

BIN := $(VENV)/bin
READY := $(VENV)/.ready

define CHECK_PYTHON
import sys
version = sys.version_info[:2]
if not (3, 11) <= version < (3, 14):
    sys.exit("error: Python 3.11, 3.12 or 3.13 is needed; %s is %d.%d. "
             "For another one: make clean-env setup PYTHON=python3.12" % (sys.argv[1], *version))
endef
export CHECK_PYTHON

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test test-gpu check check-latest docs bench bench-gpu gpu-programme clean clean-env

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  Variables: PYTHON=python3.12 (for a new environment), GIN=recipes/cn.gin, ARGS='--bind ...', WORKERS=4"

setup: $(READY) ## Make the virtual environment and install the pinned packages

run: $(READY) ## Train, sample, evaluate and track the recipe GIN
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(BIN)/python -m stav2a.run --gin $(GIN) $(ARGS)

# One thread for each worker: two tests at once on one core each take less time than one after another on both.
test: $(READY) ## Run the tests: fast ones and doctests first, then the slow ones
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" -n $(WORKERS)
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow -n $(WORKERS) --dist loadfile

test-gpu: $(READY) ## Run the tests that need a CUDA device
	$(BIN)/python -m pytest -q -m gpu

check: $(READY) ## Check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# torch is held at one version: the newest would bring several GB of CUDA libraries, this one is there for CPUs too.
check-latest: ## Install the wheel with the newest and the oldest allowed packages, and run the smoke recipe
	PYTHON=$(PYTHON) TORCH=$(TORCH) sh tests/check_latest.sh

# The variable silences a notice of the theme's authors about MkDocs 2, which is not installed.
docs: $(READY) ## Build the documentation site in site/, strictly
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/python -m mkdocs build --strict

bench: $(READY) ## Run the benchmarks and write docs/performance.md
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/benchmarks --benchmark-only
	$(BIN)/python -m tests.benchmarks.report

# On a machine that has only PyTorch 2.11 or later for its GPU: what else is needed comes from a folder of wheels.
bench-gpu: ## Run the ladder at the paper's size on a GPU (BATCH, STEPS, ROUNDS, RUNGS), with wheels from WHEELS
	$(PYTHON) -m pip install -q --no-index --find-links $(WHEELS) $(BENCH_PACKAGES)
	PYTHONPATH=. $(PYTHON) -m tests.benchmarks.ladder --scale $(SCALE) --batch $(BATCH) --steps $(STEPS) \
		--rounds $(ROUNDS) --rungs '$(RUNGS)' --minutes $(MINUTES)

gpu-programme: ## Run docs/gpu.md's programme on a GPU, with wheels from WHEELS; run again to go on
	$(PYTHON) -m pip install -q --no-index --find-links $(WHEELS) $(BENCH_PACKAGES)
	PYTHONPATH=. $(PYTHON) -m tests.benchmarks.gpu_programme --results $(RESULTS)

clean: ## Remove caches and built packages (not runs/, not the environment)
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .benchmarks
	find stav2a tests -name __pycache__ -type d -prune -exec rm -rf {} +

clean-env: ## Remove the virtual environment
	rm -rf $(VENV)

$(READY): pyproject.toml constraints.txt
	@python="$(BIN)/python"; test -x "$$python" || python="$(PYTHON)"; "$$python" -c "$$CHECK_PYTHON" "$$python"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
