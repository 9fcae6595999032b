# The same commands by hand and in CI.
PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3))
VENV ?= .venv
BIN := $(VENV)/bin
# use-pep517: an older pip builds what has no wheel (seqeval) in a way that fails.
PIP := --quiet --disable-pip-version-check --use-pep517 --constraint constraints.txt
HONE_SHARED ?= ../shared
# One process a core; each has servers of its own, so not too many.
PYTEST ?= --numprocesses logical --maxprocesses 4 --dist loadgroup --no-loadscope-reorder
export HONE_SHARED

.PHONY: help demo test check bench ui clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## install, then fine-tune, judge and register the demo model
	$(BIN)/hone run conf/demo.yaml

test: check ## install, then format check, lint, types, import rules and all tests
	$(BIN)/pytest $(PYTEST)

check: $(VENV)/.dev ## format check, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench ## every benchmark, each with a peer in the same run
	set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

ui: $(VENV)/.demo ## start the servers and a worker, and say where the UIs are; `hone down` ends them
	$(BIN)/hone up

clean: ## remove the environment and the caches of the tools
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache src/*.egg-info build

# torch is named in the same command as everything else, so that no other package brings a build of its own choosing.
$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP) torch -e '.[demo]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install $(PIP) torch -e '.[demo,dev,postgresql,qlora]'
	touch $@ $(VENV)/.demo

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/pip install $(PIP) -e '.[bench]'
	touch $@
