# `make help` lists the commands; README.md tells the story.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The newest Python from 3.11 on that this machine has.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; exit; fi; \
	done; echo python3)
PY := .venv/bin/python
PYTEST := $(PY) -m pytest
WORKERS ?= 2
TEST_ENV := DJANGO_SETTINGS_MODULE=tests.settings
# `check` has run the house rules; what looks at pages or touches no database runs on
# one backend.
HOUSE_RAN := --ignore tests/house
ONCE := $(HOUSE_RAN) --ignore tests/common/test_egress.py --ignore tests/common/test_ssrf.py \
	--ignore tests/extensions/test_sandbox.py --ignore tests/extensions/test_hostile_pack.py \
	--ignore tests/extensions/test_outlet.py \
	--ignore tests/journeys/test_desk_in_chromium.py \
	--ignore tests/journeys/test_ten_things.py --ignore tests/access/test_page_walker.py \
	--ignore tests/journeys/test_channel_storm.py --ignore tests/desk \
	--ignore tests/journeys/test_doors_and_secrets.py \
	--ignore-glob "*/test_adapters_*"

.PHONY: help
help: ## List the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

.PHONY: run
run: ## Install, prepare and start Polar on http://127.0.0.1:8000 (POLAR_PORT)
	@exec $(PYTHON) polar_site/bootstrap.py run

.PHONY: test
test: dev services-tools check deploy-check test-sqlite test-postgres ## Everything that must pass: style, types, house rules, both suites
	@echo "Left out: the reference MCP servers (make reference, needs npm) and the storms at full size (make chaos)."

.PHONY: dev
dev: ## Install what development needs into .venv
	@$(PYTHON) polar_site/bootstrap.py install dev

.PHONY: services-tools
services-tools:
	@$(PY) tests/services.py install

.PHONY: check
check: dev ## Style, lint, types, security lint, house rules, migrations
	$(PY) -m pip check
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(TEST_ENV) $(PY) -m mypy
	$(PY) -m bandit -q -c pyproject.toml -r apps polar_site --severity-level medium
	$(TEST_ENV) $(PY) manage.py makemigrations --check --dry-run
	$(PYTEST) tests/house -q -n 0

.PHONY: deploy-check
deploy-check: dev ## Django's deployment check with the production example environment
	set -a; . .ci/production.env; set +a; \
	DJANGO_SETTINGS_MODULE=polar_site.settings $(PY) manage.py check --deploy --fail-level WARNING

.PHONY: test-sqlite
test-sqlite: dev ## The suite on SQLite, without Redis
	DATABASE_URL= REDIS_URL= $(PYTEST) -q -n $(WORKERS) $(HOUSE_RAN) -m "not postgres and not redis"

.PHONY: test-postgres
test-postgres: dev services-tools ## The suite on a private PostgreSQL and Redis
	$(PY) tests/services.py exec -- $(PYTEST) -q -n $(WORKERS) $(ONCE)

.PHONY: chaos
chaos: dev services-tools ## The storms at full size: kills, races, floods, fuzzing (an hour)
	POLAR_EVERY_RECORD=1 POLAR_KILL_ROUNDS=200 $(PYTEST) -q -n 0 -m journey tests/journeys
	for with in "" "$(PY) tests/services.py exec --"; do POLAR_EVERY_FAILPOINT=1 $$with \
		$(PYTEST) -q -n 0 tests/journeys/test_turn_survives_any_kill.py; done
	POLAR_STORE_STORMS=1 $(PY) tests/services.py exec -- \
		$(PYTEST) -q -n 0 -s tests/journeys/test_postgres_rollback.py tests/journeys/test_store_storms.py
	POLAR_STORE_STORMS=1 $(PYTEST) -q -n 0 -s tests/journeys/test_store_rollback.py
	POLAR_STORM_STOPS=200 $(PYTEST) -q -n 0 -s tests/journeys/test_stopped_worker.py
	POLAR_STORM_RUNS=10000 POLAR_STORM_KILLS=500 POLAR_STORM_LEASE=20 $(PYTEST) -q -s -n 0 tests/journeys/test_kill_storm.py
	POLAR_STORM_RUNS=10000 POLAR_STORM_KILLS=500 POLAR_STORM_LEASE=20 $(PY) tests/services.py exec -- \
		$(PYTEST) -q -s -n 0 tests/journeys/test_kill_storm.py
	POLAR_TEST_VAULT_ROWS=10000 POLAR_TEST_VAULT_KILLS=100 $(PYTEST) -q -n 0 tests/vault/test_rotation.py
	for with in "" "$(PY) tests/services.py exec --"; do POLAR_REKEY_SECRETS=10000 $$with \
		$(PYTEST) -q -s -n 0 tests/journeys/test_rekeying_storm.py; done
	mkdir -p var/screens && POLAR_SCREENS=var/screens \
		$(PYTEST) -q -n 0 tests/journeys/test_blackout_in_chromium.py
	POLAR_SINK_KILLS=100 $(PYTEST) -q -n 0 tests/audit/test_sinks.py
	POLAR_CHANNEL_EVENTS=1000 $(PYTEST) -q -n 0 tests/channels/test_intake.py tests/channels/test_slack_hook.py
	POLAR_REVOKE_TRIALS=1000 $(PYTEST) -q -s -n 0 tests/extensions/test_services_stopping.py
	for with in "" "$(PY) tests/services.py exec --"; do POLAR_STORM_EVENTS=1000 POLAR_CHANNEL_JOURNEYS=1 \
		$$with $(PYTEST) -q -n 0 -s tests/journeys/test_channel_storm.py tests/journeys/test_channel_buttons.py; done
	POLAR_REVOKE_TRIALS=1000 POLAR_STORM_TURNS=200 $(PY) tests/services.py exec -- \
		$(PYTEST) -q -s -n 0 tests/extensions/test_services_stopping.py tests/gateway/test_engine_budgets.py
	$(MAKE) reference
	$(PYTEST) -q -n 0 tests/journeys/test_three_agents.py # POLAR_LLAMA, POLAR_GGUF: a real server too
	for with in "" "$(PY) tests/services.py exec --"; do POLAR_PURSE_TURNS=200 POLAR_PURSE_KILLS=8 $$with \
		$(PYTEST) -q -s -n 0 tests/journeys/test_budget_storm.py; done
	for with in "" "$(PY) tests/services.py exec --"; do POLAR_DOOR_TRIALS=100 $$with \
		$(PYTEST) -q -s -n 0 tests/journeys/test_doors_and_secrets.py; done
	POLAR_CHAOS_TURNS=200 $(PYTEST) -q -s -n 0 tests/providers/test_chaos.py
	POLAR_FUZZ_CASES=10000 $(PYTEST) -q -s -n 0 tests/access/test_api_fuzz.py
	POLAR_RUNBOOKS=1 $(PYTEST) -q -n 0 tests/journeys/test_runbooks_are_followed.py \
		tests/reliability/test_configuration_reach.py

REFERENCE := var/reference
.PHONY: reference
reference: dev ## Fetch the reference MCP servers by version and try every tool of theirs
	@if ! command -v npm >/dev/null || ! command -v node >/dev/null; then \
	echo "Left out: the reference MCP servers; node and npm are not installed."; exit 0; fi; \
	mkdir -p $(REFERENCE) && cp tests/reference/package*.json $(REFERENCE) && \
	npm ci --ignore-scripts --no-audit --no-fund --prefix $(REFERENCE) && \
	MCP_REFERENCE="$(CURDIR)/$(REFERENCE)" $(PYTEST) -q -n 0 -m journey tests/journeys/test_reference_servers.py

.PHONY: bench
bench: dev ## Measure the hot paths (BENCH="--only turns"); prints figures, judges nothing
	$(PY) -m bench.run $(BENCH)

.PHONY: screens
screens: dev ## Take the pictures of every page for docs/screens
	POLAR_SCREENS=docs/screens $(PYTEST) -q -n 0 tests/journeys/test_desk_in_chromium.py -k no_page

.PHONY: lock
lock: ## Compile requirements/*.in again (needs uv; releases at least 7 days old)
	for name in base dev; do \
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
	--exclude-newer "$$(date -u -d '7 days ago' +%F)" requirements/$$name.in -o requirements/$$name.txt; \
	done

.PHONY: format
format: ## Format the code and mend what ruff can mend
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

.PHONY: generated
generated: dev ## Write the state diagrams and the API description anew
	$(TEST_ENV) $(PY) -m tests.house.regenerate

.PHONY: clean
clean: ## Remove .venv and caches; keeps .env, the database and the witness
	@$(PYTHON) polar_site/bootstrap.py clean
