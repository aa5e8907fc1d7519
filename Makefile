# Two commands are enough: `make demo` and `make test`. Everything else is beside them.
.DEFAULT_GOAL := help
.PHONY: help demo test quick check fix up bench rights contract lock clean

PYTHON_FILES := autorenew benchmarks monitoring producers schemas simulator tests workers
BIN := .venv/bin
# Modules, and tests as pytest rewrites them, are compiled once, not by every process of a test.
export PYTHONDONTWRITEBYTECODE :=

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/run ## Run the main job once, in one process, and audit it
	@$(BIN)/autorenew demo

up: .venv/run ## Run everything in one process until stopped
	@$(BIN)/autorenew up

test: .venv/dev ## Run all tests (installs RabbitMQ when it may, see scripts/ensure-rabbitmq.sh)
	@sh scripts/ensure-rabbitmq.sh
	@sh scripts/ensure-servers.sh >/dev/null || true
	@sh scripts/ensure-postgresql.sh >/dev/null || true
	@sh scripts/ensure-powerdns.sh >/dev/null || true
	@sh scripts/ensure-node-packages.sh >/dev/null || true
	@sh scripts/ensure-prometheus.sh >/dev/null || true
	@command -v kubectl >/dev/null || sh scripts/ensure-kubectl.sh >/dev/null || true
	@sh scripts/ensure-containers.sh >/dev/null || true
	@sh scripts/ensure-browser.sh
	@$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal tests/unit tests/integration tests/rabbitmq tests/simulation
	@$(BIN)/python -m pytest -n 3 --dist worksteal tests/chaos tests/e2e

quick: .venv/dev ## Run the tests that need no server, in about a minute
	@$(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist worksteal tests/unit

check: .venv/dev ## Format, lint, types, layers, and whether the contract is fresh
	@$(BIN)/ruff format --check $(PYTHON_FILES)
	@$(BIN)/ruff check $(PYTHON_FILES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m autorenew.contract --check

fix: .venv/dev ## Format, and mend what can be mended
	@$(BIN)/ruff check --fix $(PYTHON_FILES)
	@$(BIN)/ruff format $(PYTHON_FILES)

bench: .venv/dev ## Measure against peers and against the floor (ARGS="--only fleet floor"); prints a table, writes JSON
	@sh scripts/ensure-rabbitmq.sh
	@$(BIN)/python -m benchmarks $(ARGS)

rights: .venv/dev ## Write the rights of the database roles into the documentation anew
	@$(BIN)/python -m autorenew.rights

contract: .venv/dev ## Write the contract over AMQP anew: JSON Schemas and the AsyncAPI document
	@$(BIN)/python -m autorenew.contract

lock: ## Resolve the dependencies again
	@sh scripts/lock.sh

clean: ## Remove the environment and everything the demo left
	rm -rf .venv var

.venv/run: requirements/run.txt pyproject.toml scripts/setup.sh
	@sh scripts/setup.sh run

.venv/dev: requirements/dev.txt pyproject.toml scripts/setup.sh
	@sh scripts/setup.sh dev
