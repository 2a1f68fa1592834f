# make run · test · check · bench · migrate. Needs Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# What ARGS choose may all stand in one of the two runs of `make test`; the other one then ends with pytest's code 5.
NONE_IS_FINE = $(if $(ARGS), || [ $$? -eq 5 ])
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: run install test soak check bench migrate clean

run: $(STAMP) ## start everything; DEMO=1 adds a fleet of simulated devices
	@$(BIN)/python -m tagwire up $(if $(filter 1 true yes on,$(DEMO)),--demo)

install: $(STAMP) ## make .venv with everything that is needed to run

test: $(STAMP)-dev ## every test; ARGS="-k name" runs some
	$(BIN)/python -m pytest -n 4 --dist loadfile -m "not alone" $(ARGS)$(NONE_IS_FINE)
	$(BIN)/python -m pytest -m alone $(ARGS)$(NONE_IS_FINE)

soak: $(STAMP)-dev ## the fault tests, as long as the fault table asks
	TAGWIRE_SOAK=1 $(BIN)/python -m pytest -o timeout=900 tests/faults $(ARGS)

check: $(STAMP)-dev ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP)-dev ## us beside our peers, in one run; ARGS="--quick" or ARGS="modbus_server"
	$(BIN)/python -m bench $(ARGS)

migrate: $(STAMP) ## bring the database to the newest tables (every program does so at its start as well)
	$(BIN)/python -m storage.migrate

clean: ## remove .venv and what the tools left; data/ and databases stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Our packages get on the path by one line in a .pth file: no build, no litter in the tree.
$(STAMP): requirements.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Tagwire needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
		|| { echo "Python's venv module is missing. On Debian or Ubuntu: apt install python3-venv" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) ..."
	@$(PIP) install -r requirements.txt
	@$(BIN)/python -c 'import pathlib, sysconfig; \
		pathlib.Path(sysconfig.get_path("purelib"), "tagwire.pth").write_text(str(pathlib.Path.cwd()) + "\n")'
	@printf '#!/bin/sh\nexec "$$(dirname "$$0")/python" -m tagwire "$$@"\n' > $(BIN)/tagwire
	@chmod +x $(BIN)/tagwire
	@touch $@

$(STAMP)-dev: $(STAMP) requirements-dev.txt
	@echo "Installing what tests and checks need ..."
	@$(PIP) install -r requirements-dev.txt
	@touch $@
