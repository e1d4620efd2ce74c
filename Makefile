# The commands people type. `make` alone lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TENANT ?= team-a
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup platform engines demo test test-long fuzz test-gpu test-cluster lint check audit sbom bench dist lock clean

help: ## List these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 20

setup: ## Make .venv from the lock (under a second when nothing changed)
	@test -n "$(PYTHON)" || { echo "error: no Python found. Install Python 3.11, or: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	@"$(PYTHON)" images/platform/bootstrap.py

engines: setup ## Install LLaMA-Factory and vLLM, each in an environment of its own
	@$(BIN)/llm-assets engines install

platform: # .venv with what the platform needs and no tools to work on it: half the size of `make setup`'s
	@test -n "$(PYTHON)" || { echo "error: no Python found. Install Python 3.11, or: make PYTHON=/path/to/python3.11 …" >&2; exit 1; }
	@"$(PYTHON)" images/platform/bootstrap.py --lock platform

demo: platform ## From a dataset to a live model that answers (TENANT=team-a)
	@$(BIN)/llm-assets demo --tenant $(TENANT)

# Three workers on two cores, because tests wait as much as they work; the longest, tests/e2e, begin.
test: setup engines ## All tests that this machine can run, real engines included
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations=20 $(ARGS)

test-long: setup engines ## Long counts of what `make test` runs reduced
	@$(BIN)/python -m pytest -m long -o faulthandler_timeout=0 $(ARGS)

fuzz: setup ## Random inputs to all that reads what others write, as long as you say: make fuzz MINUTES=60
	@$(BIN)/python -m tests.fuzz.nightly --minutes $(or $(MINUTES),60) $(ARGS)

test-gpu: setup engines ## What needs an NVIDIA GPU: qlora on CUDA, vLLM on CUDA
	@$(BIN)/python -m pytest -m gpu -o faulthandler_timeout=0 tests/gpu $(ARGS)

test-cluster: setup engines ## What needs a Kubernetes cluster: make test-cluster KUBECONFIG=~/.kube/config
	@test -n "$(KUBECONFIG)" || { echo "The cluster tests did not run: say on which cluster, KUBECONFIG=~/.kube/config (tests/cluster/conftest.py has the other settings)." >&2; exit 1; }
	@KUBECONFIG="$(KUBECONFIG)" $(BIN)/python -m pytest -m cluster tests/cluster $(ARGS)

lint: setup ## Format and linters of Python, YAML and Lua: the quick part of `make check`
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/yamllint --strict .
	@if command -v luacheck >/dev/null; then luacheck --quiet deployments tests; \
	else echo "Lua was not linted: luacheck is missing (Debian's lua-check)." >&2; fi

check: lint ## The above, types, import contracts, unit tests, known vulnerabilities where a database answers
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q -n 2 tests/unit
	@$(BIN)/python images/supply_chain.py audit

audit: setup ## Known vulnerabilities in what the images hold; fails where no database answers
	@$(BIN)/python images/supply_chain.py audit --required

sbom: setup ## A bill of materials of each image's lock, as CycloneDX, in dist/sbom
	@$(BIN)/python images/supply_chain.py sbom $(ARGS)

bench: setup engines ## One benchmark, one table: make bench BENCH=overhead
	@$(BIN)/python -m benchmarks.$(or $(BENCH),$(error Say which benchmark: make bench BENCH=overhead)) $(ARGS)

dist: setup ## The wheel and the source archive of a release, in dist/
	@$(BIN)/python -m hatchling build

lock: setup ## Resolve every lock file again (ARGS=--upgrade for newer versions)
	@$(BIN)/python images/locks.py $(ARGS)

clean: ## Remove .venv and caches; the state folder .llm-assets stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
