# Each target prints the commands it runs; they can be typed by hand with .venv activated.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo repro restore cross-validate test test-slow test-cluster torture lint hooks docs bench notebook page pictures site wheel release serve ui push pull

VENV ?= .venv
REQUIREMENTS ?= requirements.txt
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OUTS := models/unet.weights.h5 models/unet.json models/unet.onnx models/unet.int8.onnx
EXAMPLES := examples/patients.zip.dvc
UV := $(shell command -v uv 2>/dev/null)
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do $$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)

# Where the environment forbids bytecode, each of the many processes of a run compiles all it imports again.
export PYTHONDONTWRITEBYTECODE :=

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-15s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## install everything into .venv (again only when the requirements changed)

$(READY): $(REQUIREMENTS) pyproject.toml
ifneq ($(UV),)
	uv venv --allow-existing --python $(or $(PYTHON),3.12) $(VENV)
	uv pip install --python $(BIN)/python --compile-bytecode --require-hashes -r $(REQUIREMENTS)
	uv pip install --python $(BIN)/python --no-deps --editable .
else
ifeq ($(PYTHON),)
	@echo "ERROR 3 python: Python 3.11 to 3.13 is needed, here is $$(python3 --version 2>&1). Fix: install uv (https://docs.astral.sh/uv), which fetches one: uv python install 3.12; or apt install python3.12-venv, brew install python@3.12" >&2; exit 3
endif
	@echo "pip takes about four minutes; with uv (https://docs.astral.sh/uv) it would be one"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --require-hashes -r $(REQUIREMENTS)
	$(BIN)/python -m pip install --no-deps --editable .
endif
	@touch $@

demo: setup ## the whole pipeline on phantoms in .demo/, minutes, no download; again: what changed; FRESH=1: all of it
	$(BIN)/brainseg demo $(if $(filter-out 0,$(FRESH)),--fresh)

repro: setup ## bring all results up to date; RECIPE=name applies recipes/name.yaml as an experiment
	$(BIN)/brainseg check $(RECIPE) || { code=$$?; echo "without these checks: brainseg repro $(RECIPE)"; exit $$code; }
	$(BIN)/brainseg repro $(RECIPE)

restore: setup ## back to the committed run: parameters, numbers, model; nothing is lost
	$(BIN)/brainseg restore

cross-validate: setup ## every patient out of fold; JOBS=n at once, SCHEME=institution, RECIPE=name
	$(BIN)/brainseg cross-validate --jobs $(or $(JOBS),1) $(addprefix --scheme=,$(SCHEME)) $(RECIPE)

# worksteal: each process starts with its share of the tests in their order, so what the tests of a file have in common
# is made once; a process that is done takes over half of what another has left, so none works alone at the end.
test: setup ## the fast tests, on all cores; those of the page where there is Node.js, and a Chromium
	$(BIN)/python tools/build_page.py --if-node
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-slow: setup page ## the tests that take minutes: demo, S3, JAX, notebook, clones, the page
	$(BIN)/python -m pytest -n auto --dist worksteal --durations=30 -m slow

test-cluster: setup ## install Ray and run the tests of clusters: nodes that are killed, machines without a shared disk; half an hour
	$(if $(UV),uv pip install --python $(BIN)/python,$(BIN)/python -m pip install) --editable '.[cluster]'
	$(BIN)/python -m pytest --durations=10 tests/experiments/running tests/examples

# A count that is not given is that of docs/explanation/reliability.md. A kind that fails does not keep the next from running.
torture: setup ## hours: kills, flipped bits, mutated inputs, full disks, into docs/explanation/reliability.md; KILLS=n FLIPS=n MUTATIONS=n FULL=n
	@failed=0; for kind in "kills $(KILLS)" "flips $(FLIPS)" "mutations $(MUTATIONS)" "full_disks $(FULL)" together clean_home costs; do \
		(set -x; $(BIN)/python -m tests.torture $$kind --record) || failed=1; done; exit $$failed

lint: setup ## style, types and walls
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

hooks: setup ## what each commit is checked for, on all files; .venv/bin/pre-commit install: before each commit
	$(BIN)/pre-commit run --all-files

docs: setup ## the documents as a site, build/docs/index.html; a dead link is an error
ifneq ($(UV),)
	uv pip install --python $(BIN)/python --quiet --require-hashes -r requirements-docs.txt
else
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-docs.txt
endif
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --site-dir build/docs
	@echo "build/docs/index.html"

bench: setup ## speed and memory beside what one would use instead; QUICK=1: minutes, on phantoms, not recorded; DICE=0: without the trainings to a Dice of 0.80; SCALE=1: each stage with 1, 10 and 100 times the slices, half an hour
ifneq ($(filter-out 0,$(SCALE)),)
	$(BIN)/python benchmarks/scale.py --keep
else
	$(BIN)/python benchmarks/preprocess.py
	$(BIN)/python benchmarks/training.py $(addprefix --dice=,$(DICE))
	$(BIN)/python benchmarks/predict.py
	$(BIN)/python benchmarks/serve.py
endif

notebook: pull ## run notebooks/tour.ipynb and keep what its cells show; minutes
	$(BIN)/python -m tools.run_notebook

serve: setup $(if $(wildcard web/package.json),page) ## the page and the API on http://localhost:5000; PORT=n, HOST=0.0.0.0 for other machines too
	$(BIN)/brainseg serve $(addprefix --host=,$(HOST)) $(addprefix --port=,$(PORT))

page: setup ## build the viewer page into the package, where it is missing or older than web/
	$(BIN)/python tools/build_page.py

pictures: pull ## photograph the page in Chromium and draw the scrolling outline, for the documents: docs/images; three minutes
	$(BIN)/python -m tools.outline_animation
	$(BIN)/python -m tools.page_pictures

site: pull ## build the page as a static site in site/ that computes in the browser; OUT=folder
	$(BIN)/python -m tools.build_site $(OUT)

wheel: setup ## build the package with page and released model into dist/, to be installed without a clone; OUT=folder
	$(BIN)/python -m tools.build_wheel $(OUT)

release: setup ## wheel, released model and their digests into dist/; TAG=v1.2.3, OUT=folder
	$(BIN)/python -m tools.build_release $(TAG) $(or $(OUT),dist)

ui: setup ## browse the runs on http://127.0.0.1:5001
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}" --port 5001 --workers 1

push: setup ## send the models and the page's examples, nothing else, into weights/
	$(BIN)/dvc push --remote weights $(OUTS)
	$(BIN)/dvc --cd examples push
	$(BIN)/dvc --cd models/released push

pull: setup ## fetch the released model and the page's examples from weights/; no account needed; MODEL=default, MODEL=fast, MODEL=best: of all patients
	$(BIN)/python -m brainseg.experiments.run_dvc pull $(if $(MODEL),models/released/$(MODEL).onnx.dvc,--remote weights $(OUTS))
	$(BIN)/python -m brainseg.experiments.run_dvc pull $(EXAMPLES)
