# Everything a newcomer needs: `make setup`, `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: setup demo tradeoff methods noise levers test test-full lint types check install-check clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: setup
	$(BIN)/safepref run recipes/demo.yaml --out runs/demo

# Needs ../shared/data (docs/tradeoff.md); the same command continues a stopped run.
tradeoff: setup
	$(BIN)/safepref run recipes/tradeoff.yaml --out runs/tradeoff

# The tables of docs/tradeoff.md, hours each; every run in them continues where it was stopped.
methods: setup
	$(BIN)/safepref run recipes/levers.yaml --methods paper --out runs/methods
	$(BIN)/safepref report runs/methods --table methods

NOISE := 0 0.1 0.3 0.5
noise: setup
	for share in $(NOISE); do \
	  [ $$share = 0 ] && reuse= || reuse="--reuse runs/noise-0"; \
	  $(BIN)/safepref run recipes/levers.yaml --methods dpo,rdpo,ipo,nca --set data.flipped=$$share \
	    --out runs/noise-$$share $$reuse || exit; \
	  [ $$share = 0 ] || $(BIN)/safepref run recipes/levers.yaml --methods rdpo,nca --set data.flipped=$$share \
	    --set data.vet=drop --set judges.vet=report --out runs/noise-$$share-vetted $$reuse || exit; \
	done
	$(BIN)/safepref report runs/noise-* --table methods

levers: setup
	while read -r name settings; do \
	  [ $$name = all ] && reuse= || reuse="--reuse runs/lever-all"; \
	  $(BIN)/safepref run recipes/levers.yaml --out runs/lever-$$name $$settings $$reuse </dev/null || exit; \
	done < recipes/levers.txt
	$(BIN)/safepref report runs/lever-* --table methods

# Each process starts with one half of the files, so that what a file's tests share is made once.
test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" $(PYTEST_ARGS)

test-full: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

check: lint types test

# What a user's `pip install` gives, in an environment of its own. Only what the command imports is compiled.
install-check:
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	  $(PYTHON) -m venv "$$folder/venv" && \
	  "$$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt . && \
	  (cd "$$folder" && venv/bin/safepref methods) >"$$folder/methods.txt" && \
	  grep -qw dpo "$$folder/methods.txt" && \
	  echo "install-check: a fresh environment has a working safepref command"

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist
