# Every target sets up what it needs; nothing is done twice. PYTHON picks the interpreter for .venv.
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
APP_STAMP := $(VENV)/.app-installed
DEV_STAMP := $(VENV)/.dev-installed
# Tests that mostly wait (for a screen, for a disk) run beside one another; an engine uses all cores, so
# those with real ones run one after the other.
LIGHT_TESTS := $(wildcard $(addprefix tests/,unit engine tui))
HEAVY_TESTS := $(wildcard $(addprefix tests/,model crash e2e))
WORKERS ?= 4
CODE := $(wildcard app tests tools)

.PHONY: setup run test check lint types dead clean lock soak bench

$(APP_STAMP): requirements.lock pyproject.toml tools/install.py
	$(PYTHON) tools/install.py requirements.lock --project
	@touch $@

$(DEV_STAMP): $(APP_STAMP) requirements-dev.lock
	$(PYTHON) tools/install.py requirements-dev.lock
	@touch $@

setup: $(DEV_STAMP)  ## everything for working on it

run: $(APP_STAMP)  ## start it; make run ARGS="--model path.gguf"
	@$(BIN)/samovar $(ARGS)

test: $(DEV_STAMP)  ## all tests; make test ARGS="tests/unit -k store"
ifeq ($(ARGS),)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(LIGHT_TESTS); light=$$?; \
	$(BIN)/python -m pytest $(HEAVY_TESTS) && exit $$light
else
	$(BIN)/python -m pytest $(ARGS)
endif

check: lint types dead  ## all static checks

lint: $(DEV_STAMP)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/lint-imports

types: $(DEV_STAMP)
	$(BIN)/mypy

dead: $(DEV_STAMP)  ## code that nothing uses
	$(BIN)/vulture

lock:  ## resolve again; make lock ARGS=--upgrade takes newer versions
	$(PYTHON) tools/lock.py $(ARGS)

soak: $(DEV_STAMP)  ## long runs, not part of test
	SAMOVAR_SOAK=1 $(BIN)/python -m pytest --timeout 3600 tests/crash tests/engine/test_loop_random.py tests/engine/test_disk_random.py tests/unit/test_disk_tier_random.py $(ARGS)

bench: $(APP_STAMP)
	$(BIN)/samovar bench switchboard $(ARGS)

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .grimp_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
