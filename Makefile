# The two commands of the README are `make demo` and `make test`; both do their own set-up and can be repeated.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PRELOAD := vpp-config/fair_epoll.so
PACKAGES := nsm controlplane forwarder_vpp nsmctl perf
ARGS ?=

.PHONY: help setup demo demo-container test interop check bench bench-go soak proto fmt lock clean

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) $(PRELOAD) ## Debian packages (as root; otherwise it prints the command) and the virtual environment
	@$(BIN)/python -m compileall -qq -j 2 $(PACKAGES) || true  # a daemon starts in 0.8 of the time; it starts without too

.PHONY: system
system:
	@scripts/system-packages

$(STAMP): pyproject.toml requirements-dev.lock | system
	@scripts/virtual-environment $(VENV)
	@touch $@

$(PRELOAD): vpp-config/fair_epoll.c | system
	$(CC) -O2 -Wall -shared -fPIC -o $@ $<

demo: setup ## a workload reaches a network service across two nodes; ARGS="--dataplane linux --payload ip --json"
	@$(BIN)/nsmctl demo $(ARGS)

demo-container: setup ## the same with VPP and the agent as containers (needs podman)
	@scripts/demo-container $(ARGS)

test: setup ## every suite this machine can run, one line each at the end
	@$(BIN)/pytest $(ARGS)

interop: setup ## side by side with the Go components, where they are installed: a table
	@$(BIN)/python -m tests.interop $(ARGS)

check: setup ## ruff, mypy --strict, import-linter, deptry
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

bench: setup ## latency, messages, throughput: a table and perf/results/latest.json
	@$(BIN)/python -m perf $(ARGS)

bench-go: setup ## the same load on the Go chain and on ours, side by side; ARGS="--section one-by-one --json"
	@$(BIN)/python -m perf.versus $(ARGS)

soak: setup ## 30 minutes of clients that come and go against Go components: nothing grows, nothing is lost; ARGS="--minutes 10"
	@$(BIN)/python -m perf.soak $(ARGS)

proto: setup ## make nsm/wire/generated again from nsm/wire/proto
	$(BIN)/python -m nsm.wire.generate

fmt: setup ## format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: setup ## pin the dependencies anew
	$(BIN)/pip-compile -q --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		--generate-hashes -o requirements.lock pyproject.toml
	$(BIN)/pip-compile -q --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		--generate-hashes --extra dev --allow-unsafe -o requirements-dev.lock pyproject.toml

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks build *.egg-info
