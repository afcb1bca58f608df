# `make` alone lists what there is. Each target does its own set-up; see scripts/setup.sh.

SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help demo test soak bench bench-full lint format clean

# The tests run on each of these that is installed here, and always on the Python of .venv.
ENVS ?= py311,py312,py313
# How many tests run at once.
TEST_WORKERS ?= 2
export TEST_WORKERS

# virtualenv, which tox calls, would keep its own cache in the home directory.
export VIRTUALENV_OVERRIDE_APP_DATA := $(CURDIR)/.tox/.cache
# The directory of .venv comes first, for a tmux that conda brought.
tox := PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/tox run

help:
	@echo 'make demo    run the example: the expansion of the universe, as found in 1929'
	@echo 'make test    run the tests on every Python found here, and the checks of the source'
	@echo 'make soak    200 kills and 300 other faults at random moments, and a look at everything after each'
	@echo 'make bench   measure lc beside its alternatives (ten minutes); bench-full: the rest'
	@echo 'make lint    the checks of the source alone: mistakes, layout, types'
	@echo 'make format  lay out the source'
	@echo 'make clean   remove what these have made'
	@echo
	@echo 'PYTHON=...        the Python to use (default: the first from 3.11 on that runs)'
	@echo 'ENVS=py311        the Pythons to test on    TEST_WORKERS=4   tests at once'

demo:
	@scripts/setup.sh tmux package example
	@examples/hubble/demo.sh

test:
	@scripts/setup.sh tmux podman strace slurm locales tox
	@own=$$(.venv/bin/python -c 'import sys; print("py%d%d" % sys.version_info[:2])'); \
	case ",$(ENVS)," in *",$$own,"*) envs=$(ENVS);; *) envs=$(ENVS),$$own;; esac; \
	$(tox) -e "lint,type,$$envs"

# SEED=... repeats one; what is printed at the end says which it was.
soak: export SEED := $(or $(SEED),$(shell date +%s))
soak: export SOAK_ROUNDS := $(or $(SOAK_ROUNDS),200)
soak: export FAULT_ROUNDS := $(or $(FAULT_ROUNDS),300)
soak: export FUZZ_TIMES := $(or $(FUZZ_TIMES),50)
soak:
	@scripts/setup.sh tmux tox
	@own=$$(.venv/bin/python -c 'import sys; print("py%d%d" % sys.version_info[:2])'); \
	$(tox) -e "$$own" -- -n 0 -s tests/run/test_random_kills.py \
		tests/session/test_random_faults.py tests/test_bad_files.py tests/spec/test_fuzz.py

# BENCH=--write puts what was measured into docs/performance.md.
bench bench-full:
	@scripts/setup.sh tmux slurm package
	@.venv/bin/python -m benchmarks $(if $(filter %-full,$@),full,quick) $(BENCH)

lint:
	@scripts/setup.sh tox
	@$(tox) -e lint,type

format:
	@scripts/setup.sh tox
	@$(tox) -q -e format

clean:
	rm -rf .venv .tox .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	rm -rf examples/hubble/.venv examples/hubble/figures benchmarks/.envs benchmarks/.results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
