# Two commands are all the set-up: `make lab` runs the migration, `make test` passes the tests.
# Every target builds what it needs in .venv; PYTHON=python3.12 picks another interpreter (3.11 or newer).

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
OUT    ?= out

.DEFAULT_GOAL := help
.PHONY: help lab failures scenarios test lint unit tools docs bench bench-quick fuzz soak clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

lab: $(VENV)/run.stamp ## run the documented migration, with console and TVS logs (files go to out/migrate)
	@$(BIN)/cucm-lab run migrate --logs --out $(OUT)/migrate

failures: $(VENV)/run.stamp ## run every failure story and its repair; print a table
	@$(BIN)/cucm-lab run --failures --out $(OUT)/failures

scenarios: $(VENV)/run.stamp ## list the stories
	@$(BIN)/cucm-lab scenarios

# In CI (FUZZ_SECONDS is set) fuzzing comes first, so that pytest's result ends the output; a finding fails the run.
test: tools lint ## everything CI runs: lint, then all tests
	@failed=0; \
	if [ -n "$(FUZZ_SECONDS)" ]; then $(MAKE) --no-print-directory fuzz SECONDS=$(FUZZ_SECONDS) || failed=$$?; fi; \
	$(MAKE) --no-print-directory unit || failed=$$?; \
	exit $$failed

unit: $(VENV)/dev.stamp ## the tests without lint
	$(BIN)/python -m pytest -n auto $(PYTEST)

lint: $(VENV)/dev.stamp ## ruff, mypy --strict, import-linter, docs check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tests/docs/check_docs.py

tools: ## install the system programs the interop tests talk to (only in CI, as root; elsewhere tells what is missing)
	@tests/interop/install-tools.sh

bench: $(VENV)/dev.stamp ## measure next to the C servers and the crypto floor, 25 minutes; writes docs/benchmarks.md
	@bench/install-peers.sh
	$(BIN)/python -m bench

bench-quick: $(VENV)/dev.stamp ## the same in five minutes: a look, not a result; writes to out/
	@bench/install-peers.sh
	$(BIN)/python -m bench --quick

fuzz: $(VENV)/dev.stamp ## random bytes at every decoder, with atheris where it can be installed, for SECONDS=60
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(PIP) install -c constraints.txt -e '.[fuzz]' || \
	  echo "fuzz: atheris CANNOT BE INSTALLED here; going on with inputs that are changed by chance"
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60)

soak: $(VENV)/dev.stamp ## phones that reset at random against faults, for SECONDS=60
	$(BIN)/python -m bench.soak --seconds $(or $(SECONDS),60)

clean: ## remove what the targets made: .venv, caches, out
	rm -rf $(VENV) $(OUT) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps say what is installed, so that a second run starts no installer.
$(VENV)/run.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: needs Python 3.11 or newer; mend: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 3; }
	@echo "setting up $(VENV) (once) ..."
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "make: cannot make a virtual environment; mend: install the system's python3-venv package" >&2; exit 3; }
	@$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	@echo "adding the test tools to $(VENV) (once) ..."
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@
