# The front door. `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/installed
STAMP := $(VENV)/installed-dev
PARTS := agent backends client commands functions models queue
PYTEST_ARGS ?=
# One more than cores: tests wait for servers much of the time.
TEST_PROCESSES ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
SEED ?= 1
MUTANTS ?=
# pip's own lines, but for those that say that nothing was to be done.
PIP_LINES := sed -u -n -e "s/^Collecting /  /p" -e "/^Successfully/p"

.DEFAULT_GOAL := help
.PHONY: help run test campaign campaign-long mutants nightly check lint types arrows floor docs format schema openapi bench clean
.PHONY: spicedb-schema-upload spicedb-validate

help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z][a-zA-Z_-]*:.*## / {printf "  make %-21s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(READY) ## Run the whole system on this machine; the first time builds SpiceDB (2-4 minutes)
	@PYTHON=$(PYTHON) deploy/spicedb.sh >/dev/null
	@$(BIN)/airavata-scheduler local

test: $(STAMP) ## Run every test; the servers that they need are installed where that is possible
	@PYTHON=$(PYTHON) deploy/packages.sh test
	$(BIN)/pytest --numprocesses=$(TEST_PROCESSES) --dist=loadfile $(PYTEST_ARGS)

campaign: $(STAMP) ## Kill everything for some minutes, and judge what happened (docs/proof.md)
	@PYTHON=$(PYTHON) deploy/packages.sh test
	$(BIN)/pytest -m "campaign and not nightly" --numprocesses=$(TEST_PROCESSES) --dist=loadfile $(PYTEST_ARGS)
	$(BIN)/python -m tests.campaign.main --tasks 1500 --faults 150

campaign-long: $(STAMP) ## Hours: 200,000 made-up requests; 10,000 tasks and 1,200 faults on each database
	@PYTHON=$(PYTHON) deploy/packages.sh test
	AIRAVATA_SCHEMA_CASES=200000 AIRAVATA_SCHEMA_SEED=$(SEED) \
	    $(BIN)/pytest -m nightly tests/bad_input/test_schemathesis.py $(PYTEST_ARGS)
	@for database in sqlite postgresql mariadb; do \
	    $(BIN)/python -m tests.campaign.main --database $$database --tasks 10000 --faults 1200 \
	        --seed $(SEED) --result tests/campaign/results.jsonl || exit 1; \
	done
	$(BIN)/python -m tests.campaign.page

mutants: $(STAMP) ## Take each mechanism out and see which test notices; MUTANTS="a b" for some
	@PYTHON=$(PYTHON) deploy/packages.sh test
	$(BIN)/python -m tests.mutants.run $(MUTANTS)

nightly: $(STAMP) ## The long checks: every configuration of the lease model, kills by the hundred
	@PYTHON=$(PYTHON) deploy/packages.sh test
	AIRAVATA_NIGHTLY=1 $(BIN)/pytest -m "nightly or campaign" --timeout=3600 $(PYTEST_ARGS)

check: lint types arrows floor docs ## Everything but the tests: lint, types, import rules, docs

lint: $(STAMP) ## Lint and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## Types, strictly, through a tree of links (editors and mypy do not see import hooks)
	@mkdir -p build/types/airavata_scheduler
	@ln -sfn $(addprefix $(CURDIR)/,$(PARTS)) build/types/airavata_scheduler/
	$(BIN)/mypy

arrows: types ## Import rules: the rooms' arrows run one way
	PYTHONPATH=build/types $(BIN)/lint-imports --no-cache

floor: $(STAMP) ## The agent runs on Python 3.9 with the standard library alone
	$(BIN)/vermin --quiet --no-tips --target=3.9- --violations agent

docs: $(STAMP) ## Every setting, route, metric, command and state is documented; generated files are fresh
	$(BIN)/pytest -q -m docs $(PYTEST_ARGS)

bench: $(STAMP) ## How fast it is, beside the same machine without it (docs/benchmarks.md)
	$(BIN)/python -m benchmarks.main

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: $(STAMP) ## Write the files of db/ from the models and from SpiceDB's schema
	$(BIN)/airavata-scheduler db schema --dialect postgresql > db/schema.sql
	$(BIN)/airavata-scheduler db schema --dialect mysql > db/schema.mysql.sql
	cp backends/spicedb_schema.zed db/spicedb_schema.zed

spicedb-schema-upload: $(READY) ## Write SpiceDB's schema to the server at SPICEDB_ENDPOINT
	$(BIN)/airavata-scheduler authz upload

spicedb-validate: $(READY) ## Check by zed, or by a private SpiceDB, that the schema means what db/ says
	@command -v zed >/dev/null || PYTHON=$(PYTHON) deploy/spicedb.sh >/dev/null
	$(BIN)/airavata-scheduler authz validate db/spicedb_validation.yaml

openapi: $(STAMP) ## Write docs/openapi.json from the functions
	$(BIN)/airavata-scheduler openapi > docs/openapi.json

dist/airavata-agent.pyz: $(STAMP) $(wildcard agent/*.py) ## The agent as one file
	$(BIN)/python -m airavata_scheduler.commands.agent_file $@

clean: ## Remove what was built; .venv stays
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# One virtual environment; what only tests and checks need is added by the second stamp. Each is made
# again when a pinned version changes. pip says what it does: the first time takes minutes.
$(READY): setup.cfg pyproject.toml
	@PYTHON=$(PYTHON) deploy/packages.sh run
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing Python packages into $(VENV) (minutes the first time) …"
	@$(BIN)/python -m pip install --disable-pip-version-check --editable '.[local]' | $(PIP_LINES)
	@touch $@

$(STAMP): $(READY)
	@echo "Installing what tests and checks need …"
	@$(BIN)/python -m pip install --disable-pip-version-check --editable '.[dev,local]' | $(PIP_LINES)
	@touch $@
