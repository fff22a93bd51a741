# Everything installs itself into .venv inside the checkout; only Python 3.11+, gcc and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
TORCH := .venv-torch
ENGINES := .venv-engines
MPI := .venv-mpi
NATIVE := $(wildcard dirtytrack/native/*/*.[ch] dirtytrack/native/binding/*)
C_FILES := $(wildcard dirtytrack/native/*/*.[ch]) $(shell find benchmarks docs examples tests -name '*.[ch]')
PY_INCLUDE = $(shell $(PY) -c "import sysconfig; print(sysconfig.get_path('include'))")
C_STRICT := -std=gnu11 -O2 -Wall -Wextra -Wpedantic -Wconversion -Werror

.PHONY: demo doctor help quick test test-tracking test-checkpoint test-torch test-mpi engines bench compilers stress leaks torture fuzz pythons kernels kernels-ci lint lint-c release types docs docs-look wheel amalgamation check hooks clean

demo: $(VENV)/.built ## run the demo
	$(PY) -m dirtytrack demo

doctor: $(VENV)/.built ## can this machine track writes?
	$(PY) -m dirtytrack doctor

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quick: $(VENV)/.built ## the tests that any kernel passes, without child processes: under a minute
	$(PY) -m pytest --quick $(ARGS)

test: $(VENV)/.built ## all tests; of those without torch some: ARGS="tests/kernel -k epoch -x"
	$(if $(ARGS),$(PY) -m pytest $(ARGS),$(MAKE) --jobs=2 --output-sync test-tracking test-checkpoint)
	$(if $(ARGS),,$(MAKE) test-torch)

# Two halves that take as long as each other; together they are everything.
CHECKPOINT_TESTS := $(addprefix tests/,checkpoint cli objects relay snapshot)

test-tracking: $(VENV)/.built ## of all tests without torch, one half
	$(PY) -m pytest $(CHECKPOINT_TESTS:%=--ignore=%)

test-checkpoint: $(VENV)/.built ## the other half
	$(PY) -m pytest $(CHECKPOINT_TESTS)

# In an environment of their own: they take more than a gigabyte.
test-torch: $(TORCH)/.built ## the tests that need torch, pyarrow, pandas or ml_dtypes
	DIRTYTRACK_TEST_TORCH=1 $(TORCH)/bin/python -m pytest -m torch $(ARGS)

test-mpi: $(MPI)/.built ## the tests that need an MPI, with mpirun
	DIRTYTRACK_TEST_MPI=1 $(MPI)/bin/python -m pytest -m mpi tests/group $(ARGS)

engines: $(ENGINES)/.built ## the tests against object stores on loopback, moto and SeaweedFS, also of torch, and with Ray
	DIRTYTRACK_TEST_ENGINES=1 $(ENGINES)/bin/python -m pytest -m engines $(ARGS)

bench: $(VENV)/.built ## every cost beside its yardstick; ARGS="--list" shows the rows
	$(PY) -m dirtytrack bench $(ARGS)

compilers: $(VENV)/.built ## the interface in C with gcc, clang and musl, and as CMake installs it
	DIRTYTRACK_TEST_STRICT=1 DIRTYTRACK_TEST_COMPILERS=1 \
		$(PY) -m pytest tests/packaging/test_amalgamation.py tests/packaging/test_symbols.py $(ARGS)

stress: $(VENV)/.built ## the stress tests, for SECONDS_EACH=60
	DIRTYTRACK_STRESS_SECONDS=$(or $(SECONDS_EACH),60) HYPOTHESIS_PROFILE=long \
		$(PY) -m pytest tests/stress tests/barrier/test_runtime.py tests/barrier/test_stopped.py \
		tests/tracking/test_state_machine.py \
		tests/checkpoint/test_reentrance.py tests/checkpoint/test_interrupts.py $(ARGS)

leaks: $(VENV)/.built ## open and close SESSIONS=100000: descriptors, mappings and memory stay as they are
	DIRTYTRACK_LEAK_SESSIONS=$(or $(SESSIONS),100000) DIRTYTRACK_STRESS_SECONDS=1800 \
		$(PY) -m pytest tests/stress/test_leaks.py -s $(ARGS)

torture: $(VENV)/.built ## kill writers of checkpoints and processes of groups, KILLS=5000 times
	DIRTYTRACK_TORTURE_KILLS=$(or $(KILLS),5000) $(PY) -m pytest tests/checkpoint/test_torture.py \
		tests/group $(ARGS)

fuzz: $(VENV)/.built ## the reader of checkpoints under a coverage-guided fuzzer, for SECONDS_EACH=300
	$(PY) -m pip install --quiet --group fuzz
	$(PY) tests/_lib/checkpoint/fuzz_reader.py $(or $(SECONDS_EACH),300)

# On Debian, as root.
pythons: $(VENV)/.built ## the tests on newer Pythons, in a tree of Debian's; ARGS="3.15 -- tests/kernel"
	$(PY) tests/_lib/packaging/pythons.py $(ARGS)

# On Debian; docs/kernels.md says with what. KERNELS="6.19 arm64/7.1" boots others; then no page is written.
kernels: $(VENV)/.built ## the tests on other kernels, emulated; KERNELS="6.16 6.12-oldest" boots these
	PYTHONPATH=tests $(PY) -m matrix $(or $(KERNELS),--page) $(ARGS)

# Two kernels, as a gate: as root, qemu is installed for it; where it can't be, or without the network, it is skipped.
kernels-ci: $(VENV)/.built ## two of those kernels, without the slow tests
	PYTHONPATH=tests $(PY) -m matrix --ci

lint: $(VENV)/.lint lint-c ## ruff, clang-format, and our C without a warning
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/zizmor --offline --quiet .github
	@$(BIN)/clang-format --dry-run --Werror $(C_FILES) && echo "C files already formatted"

# Our own C, which is all but the generated file, without a warning. One example needs a header that may not be here.
lint-c: $(VENV)/.lint ## our C without a warning
	@echo $(filter-out examples/fuzzing/%, $(filter %.c, $(C_FILES))) | xargs -n 1 -P 4 gcc $(C_STRICT) -pthread \
		-Idirtytrack/native -Idirtytrack/native/include -isystem $(PY_INCLUDE) -S -o /dev/null && echo "no warnings in C"

release: wheel ## is this version ready for its tag?
	$(PY) tests/_lib/packaging/release.py

types: $(VENV)/.lint ## mypy --strict
	$(BIN)/mypy

docs: $(VENV)/.docs ## the documentation as a site, in site/; a dead link fails it
	$(PY) docs/site/build.py

docs-look: docs ## every page of that site in a headless Chromium, with pictures in build/site/pictures/
	$(PY) -m pip install --quiet --group browser
	$(PY) docs/site/look.py

# An sdist and a manylinux wheel in dist/, built twice and tried with every interpreter that is here.
wheel: $(VENV)/.wheel ## sdist and manylinux wheel, reproducible, tried with every Python that is here
	$(PY) tests/_lib/packaging/build_wheel.py dist && $(PY) tests/_lib/packaging/smoke.py dist

amalgamation: ## the interface in C as two files, with CMake and pkg-config: build/amalgamation/
	$(PYTHON) dirtytrack/native/amalgamation/amalgamate.py build/amalgamation

check: test lint types docs wheel ## test, lint, types, docs and wheel; .ci/run does these and kernels-ci, strictly

hooks: $(VENV)/.lint ## have git run lint and types before each commit
	$(PY) -m pip install --quiet --group hooks
	$(BIN)/pre-commit install

clean: ## remove everything that was built
	rm -rf $(VENV) $(TORCH) $(MPI) $(ENGINES) build dist site *.egg-info dirtytrack/native/_core.c dirtytrack/native/*.so

$(VENV)/.tools: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade "pip>=25.1"
	$(PY) -m pip install --quiet --group test
	touch $@

$(VENV)/.built: $(VENV)/.tools setup.py $(NATIVE)
	$(PY) -m pip install --quiet --editable .
	touch $@

$(TORCH)/.tools: pyproject.toml
	$(PYTHON) -m venv $(TORCH)
	$(TORCH)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(TORCH)/bin/python -m pip install --quiet --group test
	touch $@

# Where torch can't be had the tests say so; it is tried again the next time.
$(TORCH)/.built: $(TORCH)/.tools setup.py | $(VENV)/.built
	$(TORCH)/bin/python -m pip install --quiet --editable .
	-$(TORCH)/bin/python -m pip install --quiet --group torch && touch $@

$(MPI)/.tools: pyproject.toml
	$(PYTHON) -m venv $(MPI)
	$(MPI)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(MPI)/bin/python -m pip install --quiet --group test --group mpi
	touch $@

$(MPI)/.built: $(MPI)/.tools setup.py | $(VENV)/.built
	$(MPI)/bin/python -m pip install --quiet --editable .
	touch $@

$(ENGINES)/.tools: pyproject.toml
	$(PYTHON) -m venv $(ENGINES)
	$(ENGINES)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(ENGINES)/bin/python -m pip install --quiet --group test --group engines
	touch $@

$(ENGINES)/.built: $(ENGINES)/.tools setup.py | $(VENV)/.built
	$(ENGINES)/bin/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.lint: $(VENV)/.built
	$(PY) -m pip install --quiet --group lint
	touch $@

$(VENV)/.docs: $(VENV)/.built
	$(PY) -m pip install --quiet --group docs
	touch $@

$(VENV)/.wheel: $(VENV)/.built
	$(PY) -m pip install --quiet --group wheel
	touch $@
