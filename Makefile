# `make run` and `make test` do all their own set-up. Every target is described in README.md.
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

# The server ends when make does, even by kill -9.
TIED := $(shell command -v setpriv >/dev/null 2>&1 && echo setpriv --pdeathsig TERM)

.PHONY: run test protos protos-check lint format bench pins clean setup

run: setup
	@ZAAZ_DEMO_CATALOG="$${ZAAZ_DEMO_CATALOG-demo/catalog.yaml}" $(TIED) $(BIN)/python -m server run

test: setup
	@tools/browser.sh
	@$(BIN)/python -m pytest -n 3 --dist loadfile

bench: setup
	@$(BIN)/python -m bench $(NAME) $(if $(FULL),--full)

protos: setup
	@buf format -w
	@buf generate

protos-check: setup
	@tools/check_generated.sh

lint: setup protos-check
	@ruff check .
	@ruff format --check --quiet .
	@mypy
	@buf lint
	@buf format --exit-code -d
	@tools/check_breaking.sh

format: setup
	@ruff check --fix .
	@ruff format .

pins: setup
	@tools/pins.sh

clean:
	@rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis

setup:
	@tools/setup.sh
