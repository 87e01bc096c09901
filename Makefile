# Every target starts from a bare clone: the environment is built when it is missing or pyproject.toml changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.darkroom
RUNS ?= runs
# On Linux the default torch brings CUDA; without it: make env TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# make test runs in so many processes, each on one core with 1 to 2 GB of memory; WORKERS=1 runs all in one.
WORKERS ?= $(shell $(PYTHON) -c 'import os; n = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0); print(min(len(n), 8))')
# Without these, accelerate guesses and warns, and on a CPU it guesses one thread.
THREADS := $(shell $(PYTHON) -c 'import os; print(min(os.cpu_count() or 1, 16))')
LAUNCH := --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no --num_cpu_threads_per_process $(THREADS)

# Idle threads must sleep, not spin: two spinning pools on two cores are several times slower than one thread each.
export OMP_WAIT_POLICY := PASSIVE
export KMP_BLOCKTIME := 0
# Nothing here needs a model hub or a tracker.
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.PHONY: help env demo retrain-demo schedule schedule-stop test test-all check fix bench training fetch engines judge verdicts clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 13) else "Darkroom needs Python 3.11 or 3.12: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -e '.[dev]'
	@touch $@

env: $(STAMP)  ## build .venv, which the other targets use

demo: $(STAMP)  ## curate OpenMoji, fine-tune the built-in model, judge and export it
	$(BIN)/python -m curate experiment=demo run.root=$(RUNS)
	$(BIN)/accelerate launch $(LAUNCH) finetune/train.py experiment=demo run.root=$(RUNS)
	$(BIN)/python -m evaluate experiment=demo run.root=$(RUNS)
	@echo
	@echo "curation report    $(RUNS)/demo/curate/report.html"
	@echo "evaluation report  $(RUNS)/demo/evaluate/report.html"
	@echo "exported LoRA      $(RUNS)/demo/finetune/export"

retrain-demo: $(STAMP)  ## retrain a folder of drawings that grows; reject worse settings; go back
	$(BIN)/python -m workflows.retraining.demo $(RUNS)/retrain-demo

$(VENV)/.schedule: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[schedule]'
	@touch $@

# What is retrained and when; the page is on http://127.0.0.1:PORT. LOOK_S=600 also looks every ten minutes.
EXPERIMENT ?= demo
CRON ?= 17 3 * * 0
TIMEZONE ?= UTC
LOOK_S ?= 0
PORT ?= 3000
schedule: export DARKROOM_EXPERIMENT := $(EXPERIMENT)
schedule: export DARKROOM_CRON := $(CRON)
schedule: export DARKROOM_TIMEZONE := $(TIMEZONE)
schedule: export DARKROOM_LOOK_S := $(LOOK_S)
schedule: export DARKROOM_ARGUMENTS := 'run.root=$(RUNS)' $(ARGUMENTS)
schedule: $(VENV)/.schedule  ## retrain by the clock, with Dagster: make schedule EXPERIMENT=FILE CRON="17 3 * * 0"
	$(BIN)/python -m workflows.schedule start --home $(RUNS)/.dagster --port $(PORT)

schedule-stop:  ## end what make schedule started
	$(BIN)/python -m workflows.schedule stop --home $(RUNS)/.dagster

test: $(STAMP)  ## all tests but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow' $(if $(filter-out 1,$(WORKERS)),-n $(WORKERS) --dist loadfile)

test-all: $(STAMP)  ## all tests
	$(BIN)/python -m pytest

check: $(STAMP)  ## lint, format, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

fix: $(STAMP)  ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## speed, as ratios inside one run; make bench training (or fetch, or engines): only that; make bench judge: 10^8 rows; make bench verdicts: for hours
	$(BIN)/python -m workflows.bench $(if $(filter verdicts,$(MAKECMDGOALS)),verdicts --root $(RUNS)/verdicts $(ROWS),$(patsubst judge,judging,$(patsubst fetch,fetching,$(filter training fetch engines judge,$(MAKECMDGOALS)))))

# The word after bench; of verdicts some rows: make bench verdicts ROWS="demo few --seeds 0,1"
training fetch engines judge verdicts:
	@$(if $(filter bench,$(MAKECMDGOALS)),:,echo "type: make bench $@" >&2; exit 2)

clean:  ## remove the environment and caches; runs stay
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
