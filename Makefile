# The same commands by hand and in CI.
# Empty: the newest supported version on PATH.
PYTHON ?=
VENV ?= .venv
BIN := $(VENV)/bin
# INSTALL=--pip installs without uv.
INSTALL ?=
INSTALLER := $(BIN)/python .ci/install.py $(INSTALL)
HONE_SHARED ?= ../shared
# One process a core; each has servers of its own, so not too many.
PYTEST ?= --numprocesses logical --maxprocesses 4 --dist loadgroup --no-loadscope-reorder
export HONE_SHARED

# The suite again as on a processor without AVX-512 and AMX, for what computes.
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2

.PHONY: help demo test test-all test-changed check storm fuzz bench schemas ui lock sbom clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## install, then fine-tune, judge and register the demo model
	$(BIN)/hone run conf/demo.yaml

test: check ## install, then format check, lint, types, import rules and all tests but the long ones
	$(BIN)/pytest $(PYTEST)

test-all: check ## the same with the long tests, then what computes as on a processor with AVX2 alone
	$(BIN)/pytest $(PYTEST) -m ""
	$(AVX2) $(BIN)/pytest $(PYTEST) -m "" tests/unit/training tests/unit/methods tests/unit/families/test_known_answers.py

test-changed: $(VENV)/.dev ## the test files whose imports differ from main
	$(BIN)/pytest $(PYTEST) --changed

check: $(VENV)/.dev ## format check, lint, types, import rules and the words of messages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/prose.py

# N kills; each command starts in a folder of its own and is repeated after its kill.
N ?= 200
SEED ?= 1
storm: $(VENV)/.dev ## kill commands at random instants, repeat them, compare what is left with an undisturbed command
	$(BIN)/python tests/storm.py --kills $(N) --seed $(SEED)

# CASES is over all kinds of input; `python -m tests.fuzzing --only` repeats one.
CASES ?= 20000
fuzz: $(VENV)/.dev ## damage files, rows, configurations and stored JSON at random: each is read right or refused
	$(BIN)/python -m tests.fuzzing --cases $(CASES) --seed $(SEED)

bench: $(VENV)/.bench ## every benchmark, each with a peer in the same run
	set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

schemas: $(VENV)/.dev ## write the *.sql of new databases again, from the migrations of the installed Prefect and MLflow
	$(BIN)/python -m hone_app.service.schemas

ui: $(VENV)/.demo ## start the servers and a worker, and say where the UIs are; `hone down` ends them
	$(BIN)/hone up

lock: | $(BIN)/python ## make constraints.txt again from pyproject.toml
	$(BIN)/python .ci/install.py --lock

# In an environment of its own: the list has what Hone needs, not what makes the list.
sbom: $(VENV)/.demo ## write build/sbom.json: all installed packages, their versions, licences and who needs them (CycloneDX)
	$(BIN)/python -m venv build/sbom
	build/sbom/bin/pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0
	build/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file build/sbom.json $(BIN)/python

clean: ## remove the environment and the caches of the tools
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache src/*.egg-info build

$(BIN)/python:
	python=$$(.ci/find-python $(if $(PYTHON),"$(PYTHON)")) && "$$python" -m venv --clear $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt examples/installed_docs/pyproject.toml | $(BIN)/python
	$(INSTALLER) demo
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt examples/installed_docs/pyproject.toml | $(BIN)/python
	$(INSTALLER) demo dev postgresql qlora benchmarks
	touch $@ $(VENV)/.demo

$(VENV)/.bench: $(VENV)/.dev
	$(INSTALLER) bench
	touch $@
