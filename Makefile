# run · test · install · check · bench · docs · lock · clean: the same words a person and CI use.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PORT ?= 8000
GRPC_PORT ?= $(shell expr $(PORT) + 1)
HOST ?= 127.0.0.1
VENV := .venv
BIN := $(VENV)/bin
LOCK := api/requirements-dev.lock
STAMP := $(VENV)/.installed

.PHONY: help install run test check format bench docs lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(STAMP): $(LOCK) api/pyproject.toml
	@bash scripts/make-venv.sh $(VENV) $(LOCK)
	@touch $(STAMP)

install: $(STAMP) ## .venv with the locked dependencies (CPU, EOTDL, development)

run: $(STAMP) ## serve the sample models on http://127.0.0.1:8000; PORT=9000 moves it (gRPC: the port after it)
	@$(BIN)/ml-inference samples samples
	@HOST=$(HOST) PORT=$(PORT) GRPC_PORT=$(GRPC_PORT) $(BIN)/ml-inference serve

test: check ## lint, types, import contracts and every test
	@cd api && ../$(BIN)/python -m pytest -q -n 2 $(ARGS)

check: $(STAMP) ## lint, types, import contracts
	@cd api && ../$(BIN)/ruff check --config pyproject.toml . ../loadtest && ../$(BIN)/ruff format --config pyproject.toml --check . ../loadtest && ../$(BIN)/mypy && ../$(BIN)/lint-imports --no-cache

format: $(STAMP) ## let ruff mend what it can
	@cd api && ../$(BIN)/ruff check --config pyproject.toml --fix . ../loadtest; ../$(BIN)/ruff format --config pyproject.toml . ../loadtest

bench: $(STAMP) ## what the service adds to decoding and session.run, on this machine
	@$(BIN)/python loadtest/bench/overhead.py $(ARGS)

docs: $(STAMP) ## write anew what is generated: .env.example
	@$(BIN)/ml-inference settings --env-example > .env.example

lock: ## solve the dependencies again (needs uv)
	@bash scripts/lock.sh

clean: ## remove what make made
	rm -rf $(VENV) samples api/.mypy_cache api/.ruff_cache api/.hypothesis api/*.egg-info
