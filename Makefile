# Needs make and Python 3.11 or newer; uses uv where it is installed. `make` alone lists what there is.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# PYTHON=/path/to/python chooses one.
PYTHON ?=
# More arguments for pytest: make test ARGS='-k retry'
ARGS ?=

# The numbers of `make fuzz`: verdicts to compare, requests to send, calls per operation of the API.
FUZZ ?= 20000
FUZZ_REQUESTS ?= 200000
FUZZ_API ?= 500
# Recorded faults; see bench/faults.py.
FAULTS ?= ../shared/traces/onlineboutique-faults

.DEFAULT_GOAL := help
.PHONY: help venv demo docs picture test crashes field fuzz interop lint types format bench-check bench-estimates bench-faults bench-gate bench-ingest bench-latency bench-phoenix bench-start

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile

venv: $(READY) ## make the environment in .venv (other targets do it when needed)

demo: $(READY) ## start the demo shop, run its proofs, stop it
	@$(BIN)/spanproof demo

docs: $(READY) ## make the documentation site in .docs; a broken link, or a page that no index reaches, is an error
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs .docs

picture: $(READY) ## draw the failing proof of README again, from what spanproof prints
	@$(BIN)/python docs/picture/make.py

test: $(READY) ## run the tests
	@$(BIN)/pytest --numprocesses 3 --dist worksteal $(ARGS)

fuzz: $(READY) ## compare 20,000 verdicts with the reference evaluator (FUZZ=n), send 200,000 malformed requests (FUZZ_REQUESTS=n), call each operation of the API 500 times (FUZZ_API=n)
	@TESTS_FUZZ=$(FUZZ) $(BIN)/pytest tests/reference/test_agreement.py tests/reference/test_live_agreement.py --timeout 7200 $(ARGS)
	@TESTS_FUZZ_REQUESTS=$(FUZZ_REQUESTS) $(BIN)/pytest tests/fuzz --capture no $(ARGS)
	@TESTS_FUZZ_API=$(FUZZ_API) $(BIN)/pytest tests/api/http/test_openapi.py --timeout 7200 $(ARGS)

crashes: $(READY) ## kill, starve and damage the collector in full: 25 kills
	@TESTS_KILLS=25 $(BIN)/pytest tests/crashes --timeout 1200 $(ARGS)

interop: $(READY) .interop/ready ## let the OpenTelemetry Collector and telemetrygen send; builds both, with Go
	@$(BIN)/pytest tests/interop --timeout 300 $(ARGS)

field: $(READY) ## let real HTTP, gRPC and queue clients call a server that fails, and compare each verdict with its log (ARGS='--client got --plan hang-once' for a part of it)
	@tests/field/build
	@$(BIN)/python -m spanproof.tests.field $(ARGS)

bench-ingest: $(READY) ## measure how fast spans are ingested (ARGS='--only grpc64,grpc1' for a part of it)
	@$(BIN)/python bench/ingest.py $(ARGS)

bench-check: $(READY) ## measure how long a proof of 200 claims takes to check
	@$(BIN)/python bench/check.py $(ARGS)

bench-faults: $(READY) ## judge recorded faults by a generic proof (FAULTS=folder of the recordings)
	@$(BIN)/python -m spanproof.bench.faults $(FAULTS) $(ARGS)

bench-gate: $(READY) ## measure the proof of a deploy gate over 1 and 10 million spans; keeps its stores in .bench
	@$(BIN)/python -m spanproof.bench.gate $(ARGS)

bench-estimates: $(READY) ## simulate how often estimates err, and how many traces they need
	@$(BIN)/python -m spanproof.bench.estimates $(ARGS)

bench-latency: $(READY) ## measure the time from the deciding span to the verdict
	@$(BIN)/python -m spanproof.bench.verdict_latency $(ARGS)

bench-start: $(READY) ## measure the start-up of --version, check and run
	@$(BIN)/python -m spanproof.bench.start $(ARGS)

bench-phoenix: $(READY) ## install Phoenix into .phoenix, for bench-ingest to compare with
	@$(BIN)/python -m venv .phoenix && .phoenix/bin/python -m pip install --quiet arize-phoenix

lint: $(READY) ## check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## check the types
	@mkdir -p .typecheck && ln -sfn .. .typecheck/spanproof
	@$(BIN)/mypy -p spanproof

format: $(READY) ## format the code, and repair what ruff can repair
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# The environment is made from the versions in constraints.txt, and again when these or pyproject.toml change.
$(READY): pyproject.toml constraints.txt
	@python=''; \
	for candidate in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python); do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    python=$$(command -v $$candidate); break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo 'spanproof needs Python 3.11 or newer, and none was found; make PYTHON=/path/to/python names one' >&2; \
	  exit 1; \
	fi; \
	rm -rf $(VENV); \
	if command -v uv >/dev/null; then \
	  echo "making $(VENV) with uv and $$python"; \
	  uv venv --quiet --python "$$python" $(VENV) && \
	  uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'; \
	else \
	  echo "making $(VENV) with pip and $$python; this takes a minute"; \
	  if ! "$$python" -m venv $(VENV); then \
	    echo "$$python cannot make environments; on Debian: apt-get install python3-venv" >&2; \
	    exit 1; \
	  fi; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[dev]'; \
	fi
	@touch $@

# The Go programs are built once, and again when their versions change.
.interop/ready: tests/interop/build tests/interop/collector.yaml
	@tests/interop/build
	@touch $@
