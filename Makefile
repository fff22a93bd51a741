# Everything installs itself into .venv inside the checkout; only Python 3.11+, gcc and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
NATIVE := $(wildcard dirtytrack/native/*/*.[ch] dirtytrack/native/binding/*)
C_FILES := $(wildcard dirtytrack/native/*/*.[ch]) $(shell find benchmarks examples tests -name '*.[ch]')
C_STRICT := -std=gnu11 -O2 -Wall -Wextra -Wpedantic -Wconversion -Werror

.PHONY: demo test doctor bench stress leaks torture fuzz kernels kernels-ci lint lint-c types wheel check clean

demo: $(VENV)/.built
	$(PY) -m dirtytrack

doctor: $(VENV)/.built
	$(PY) -m dirtytrack doctor

test: $(VENV)/.built
	$(PY) -m pytest $(ARGS)

bench: $(VENV)/.built
	$(PY) -m dirtytrack bench $(ARGS)

stress: $(VENV)/.built
	DIRTYTRACK_STRESS_SECONDS=$(or $(SECONDS_EACH),60) HYPOTHESIS_PROFILE=long \
		$(PY) -m pytest tests/stress tests/barrier/test_runtime.py tests/tracking/test_state_machine.py $(ARGS)

leaks: $(VENV)/.built
	DIRTYTRACK_LEAK_SESSIONS=$(or $(SESSIONS),100000) DIRTYTRACK_STRESS_SECONDS=1800 \
		$(PY) -m pytest tests/stress/test_leaks.py -s $(ARGS)

torture: $(VENV)/.built
	DIRTYTRACK_TORTURE_KILLS=$(or $(KILLS),5000) $(PY) -m pytest tests/checkpoint/test_torture.py $(ARGS)

fuzz: $(VENV)/.built
	$(PY) -m pip install --quiet --group fuzz
	$(PY) tests/_lib/checkpoint/fuzz_reader.py $(or $(SECONDS_EACH),300)

# On Debian; docs/kernels.md says with what. KERNELS="6.19 arm64/7.1" boots others; then no page is written.
kernels: $(VENV)/.built
	PYTHONPATH=tests $(PY) -m matrix $(or $(KERNELS),--page) $(ARGS)

# Two kernels, as a gate: as root, qemu is installed for it; where it can't be, or without the network, it is skipped.
kernels-ci: $(VENV)/.built
	PYTHONPATH=tests $(PY) -m matrix --ci

lint: $(VENV)/.lint lint-c
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/clang-format --dry-run --Werror $(C_FILES) && echo "C files already formatted"

# Our own C, which is all but the generated file, without a warning.
lint-c:
	@echo $(filter %.c, $(C_FILES)) | xargs -n 1 -P 4 gcc $(C_STRICT) -pthread \
		-Idirtytrack/native -Idirtytrack/native/include -S -o /dev/null && echo "no warnings in C"

types: $(VENV)/.lint
	$(BIN)/mypy

# An sdist and a manylinux wheel in dist/, built twice and tried with every interpreter that is here.
wheel: $(VENV)/.wheel
	$(PY) tests/_lib/packaging/build_wheel.py dist && $(PY) tests/_lib/packaging/smoke.py dist

check: test lint types wheel

clean:
	rm -rf $(VENV) build dist *.egg-info dirtytrack/native/_core.c dirtytrack/native/*.so

$(VENV)/.tools: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade "pip>=25.1"
	$(PY) -m pip install --quiet --group test
	touch $@

$(VENV)/.built: $(VENV)/.tools setup.py $(NATIVE)
	$(PY) -m pip install --quiet --editable .
	touch $@

$(VENV)/.lint: $(VENV)/.built
	$(PY) -m pip install --quiet --group lint
	touch $@

$(VENV)/.wheel: $(VENV)/.built
	$(PY) -m pip install --quiet --group wheel
	touch $@
