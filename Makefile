# Each target works as the first command after git clone: it makes .venv first, then does its job.
#   make setup   install everything into .venv          make demo    the whole chain, 18 minutes on two cores
#   make test    the whole test suite                   make lint    ruff        make bench   benchmarks/*.py
#   make train-legs   the legs from nothing: both stages and all scores, three hours on two cores

SHELL := /bin/sh
STAMP := .venv/.wbvla-installed
INPUTS := pyproject.toml constraints.txt plugins/lerobot_policy_wbvla/pyproject.toml scripts/bootstrap.sh

export PYTHON
export MUJOCO_GL ?= egl
export OMP_WAIT_POLICY ?= PASSIVE
export HF_HUB_OFFLINE ?= 1

.PHONY: setup demo test lint bench train-legs
.DEFAULT_GOAL := setup

setup: $(STAMP)

$(STAMP): $(INPUTS)
	@./scripts/bootstrap.sh
	@touch $@

demo: $(STAMP)
	.venv/bin/wbvla demo $(ARGS)

# Tests that watch the clock have the machine for themselves, after all others.
test: $(STAMP)
ifdef ARGS
	.venv/bin/python -m pytest $(ARGS)
else
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m "not alone" -n logical --maxprocesses 4 --dist loadfile \
		--no-loadscope-reorder; others=$$?; .venv/bin/python -m pytest -m alone && exit $$others
endif

lint: $(STAMP)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

bench: $(STAMP)
	@set -e; for script in benchmarks/bench_*.py; do echo "== $$script"; .venv/bin/python $$script; done

train-legs: $(STAMP)
	.venv/bin/python scripts/train_legs.py $(ARGS)
