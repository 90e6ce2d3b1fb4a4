# Every recipe is a plain command: `make -n run` shows what to copy.

PYTHON ?= python3
DATABASE_URL ?= $(or $(shell sed -n 's/^DATABASE_URL=//p' .env 2>/dev/null),postgresql://user@localhost:5433/moderation)
BIN := .venv/bin
# Tests mostly wait, for servers and for clocks: more of them than cores can do so at once. Each has servers of its own.
TEST_PROCESSES ?= 4
# Tests of one file share fixtures: a server for harm, a worker, a model.
PARALLEL := -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

# Progress bars are for a terminal.
ifndef MAKE_TERMOUT
export PIP_PROGRESS_BAR := off
endif

.DEFAULT_GOAL := help
.PHONY: help run test-fast test test-real test-chaos test-cluster test-harm test-package test-browser demo screenshots test-ecosystem soak-memory coverage soak bench bench-smoke bench-moderation bench-plans bench-migrations migrate train evaluate bench-model check lint types imports format clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | awk -F '\t' '{ printf "make %-16s %s\n", $$1, $$2 }'

run: .venv/runtime.stamp ## start everything on this machine, show a dozen verdicts, serve until Ctrl-C
	$(BIN)/python -m dev

test-fast: .venv/runtime.stamp ## run the tests that need neither Kafka nor PostgreSQL
	$(BIN)/python -m pytest tests/ -q --without-servers --fast $(PARALLEL)

test: .venv/runtime.stamp ## run the tests on the embedded PostgreSQL and Kafka
	$(BIN)/python -m pytest tests/ -v $(PARALLEL) $(TEST_OPTIONS)

test-real: .venv/runtime.stamp ## run them on Apache Kafka and this machine's PostgreSQL, or on servers named by variables
	$(BIN)/python -m pytest tests/ -v --stack=real $(PARALLEL) --ignore=tests/chaos --ignore=tests/cluster $(TEST_OPTIONS)

test-chaos: .venv/runtime.stamp ## kill workers and an Apache Kafka in every way that is known, one test at a time
	$(BIN)/python -m pytest tests/chaos -v --stack=real

test-cluster: .venv/runtime.stamp ## harm single nodes of three Apache Kafkas that replicate, two files at a time
	$(BIN)/python -m pytest tests/cluster -v --stack=real -n 2 --dist loadfile

test-harm: .venv/runtime.stamp ## the tests of test-chaos and test-cluster, two files at a time
	$(BIN)/python -m pytest tests/chaos tests/cluster -v --stack=real -n 2 --dist loadfile

test-package: .venv/dev.stamp ## build the broker's wheel, install it alone, and run an application on it
	$(BIN)/python -m pytest tests/package -v --package-index

test-browser: .venv/dev.stamp ## drive the web console with the system's Chromium (apt-get install chromium)
	$(BIN)/python -m pytest tests/browser -v --stack=real --browser

demo: .venv/runtime.stamp ## start a shop whose tasks fail in every way, with its web console, until Ctrl-C
	$(BIN)/python -m dev.demo

screenshots: .venv/dev.stamp ## recreate the pictures of docs/web-console/ from the demo
	$(BIN)/python -m dev.demo.screenshots

test-ecosystem: .venv/ecosystem.stamp ## drive packages that people use Dramatiq with: flask-dramatiq, django_dramatiq, Sentry...
	$(BIN)/python -m pytest tests/ecosystem -v --stack=real

soak-memory: .venv/runtime.stamp ## let everything happen in any order on a Kafka in memory: make soak-memory EXAMPLES=5000
	$(BIN)/python -m pytest tests/broker/memory/test_machine.py -q --without-servers --timeout=0 --machine-examples=$(or $(EXAMPLES),3000)

coverage: .venv/dev.stamp ## run the tests without servers, and print which lines and branches of the product they reach
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest tests/ -q --without-servers --fast $(PARALLEL)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

soak: .venv/runtime.stamp ## harm workers and an Apache Kafka at random: make soak SEED=7 MINUTES=30
	$(BIN)/python -m tests.chaos.soak $(if $(SEED),--seed $(SEED)) --minutes $(or $(MINUTES),10)

bench: .venv/bench.stamp ## measure this broker beside its peers: make bench ROWS="noop idle" ROUNDS=5
	$(BIN)/python -m bench --keep bench/results $(if $(ROUNDS),--rounds $(ROUNDS)) $(ROWS)

bench-smoke: .venv/bench.stamp ## the same in three minutes, to see that every row yields figures
	$(BIN)/python -m bench --smoke

bench-moderation: .venv/bench.stamp ## measure the service beside the design written by hand: make bench-moderation ROWS=latency
	$(BIN)/python -m bench.moderation --keep bench/results/moderation $(if $(ROUNDS),--rounds $(ROUNDS)) $(ROWS)

bench-plans: .venv/bench.stamp ## explain every statement of db/ on ten million rows: make bench-plans SUBMISSIONS=100000
	$(BIN)/python -m bench.plans --rows $(or $(SUBMISSIONS),10000000)

bench-migrations: .venv/bench.stamp ## apply the migrations under load to ten million rows: make bench-migrations SUBMISSIONS=100000
	$(BIN)/python -m bench.migrations --rows $(or $(SUBMISSIONS),10000000)

migrate: .venv/runtime.stamp ## apply migrations/ to the database that DATABASE_URL names
	$(BIN)/python -m db.sessions "$(DATABASE_URL)" && $(BIN)/yoyo apply --batch --no-config-file --database "$(DATABASE_URL)" migrations

train: .venv/runtime.stamp ## make model.pkl and model.json anew; learn from your own ads as well: make train DATA=ads.csv
	$(BIN)/python -m training $(if $(DATA),--data "$(DATA)")

evaluate: .venv/runtime.stamp ## measure model.pkl; print the figures and write them to training/, or: make evaluate DATA=ads.csv
	$(BIN)/python -m training.evaluate $(if $(DATA),--data "$(DATA)")

bench-model: .venv/runtime.stamp ## how fast model.pkl loads, scores and explains
	$(BIN)/python -m bench.model

check: lint types imports ## lint, types and imports together

lint: .venv/dev.stamp ## look for mistakes and unformatted files (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev.stamp ## check the types (mypy, strict for broker/)
	$(BIN)/mypy

imports: .venv/dev.stamp ## check which package imports which (import-linter)
	$(BIN)/lint-imports

format: .venv/dev.stamp ## format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the virtual environment and what `make run` keeps (.dev: data, logs, Kafka's jars)
	rm -rf .venv .dev

# Made anew when the pins change, so that nothing of the old ones stays.
.venv/runtime.stamp: requirements.txt requirements-service.txt
	@command -v $(PYTHON) >/dev/null || \
	    { echo "There is no $(PYTHON) here: install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and \
	    f"Python 3.11 or newer is needed and $(PYTHON) is {v}: name a newer one, make PYTHON=/path/to/python3.12")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/bench.stamp: .venv/runtime.stamp requirements-bench.txt
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-bench.txt
	@touch $@

.venv/ecosystem.stamp: .venv/runtime.stamp requirements-ecosystem.txt
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-ecosystem.txt
	@touch $@

.venv/dev.stamp: .venv/runtime.stamp requirements-dev.txt
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-dev.txt
	@touch $@
