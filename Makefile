# make miou     set up a clone and make results/miou.csv
# make test     run lint, types and every test that this machine can run
# make faults   run the tests that kill jobs, with more kills
# make kills    kill whole runs of Snakemake and DVC, and compare the bytes at the end
# make site     build the website of the documents in site/
# VENV=DIR chooses another folder for the virtual environment.
VENV ?= .venv
PYTHON ?= python3.11
CORES ?= 8
BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)

.PHONY: setup miou report publish schema overview settings site lint test faults orders kills bench growth clean

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

miou: setup
	snakemake --cores $(CORES) results/miou.csv
	@cut -d, -f2-4,24-26 results/miou.csv

# Make the tables and figures of all finished runs, and the page that shows them.
report: setup
	snakemake --cores $(CORES) finished
	snakemake --report results/report.html finished
	snakemake --report results/report.zip finished

# Copy tables and figures of the miniature into docs/miniature. The command refuses results that
# do not match params.yaml.
publish: setup
	snakemake --cores $(CORES) results/miou.csv figures
	madan publish docs/miniature

schema: setup
	$(BIN)/python -c "import json, madan.config.schema as s; print(json.dumps(s.Params.model_json_schema(), indent=1))" \
	  > workflow/schemas/params.schema.json

# Write the list of modules in docs/overview.md from their docstrings.
overview: setup
	$(BIN)/python docs/list_modules.py

# Write the settings reference, docs/settings.md, from the schema and params.yaml.
settings: setup
	$(BIN)/python docs/list_settings.py

# Build the website without network access. A broken link or a missing page is an error.
# The variable silences an advertisement of mkdocs-material.
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: setup
	ruff format --check madan tests benchmarks docs
	ruff check madan tests benchmarks docs
	$(BIN)/python docs/list_modules.py --check
	$(BIN)/python docs/list_settings.py --check
	mypy
	snakefmt --check Snakefile workflow
	$(BIN)/python tests/snakemake_lint.py
	$(BIN)/python tests/shell_lint.py
	$(BIN)/python tests/prose_lint.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Tests of one file run in one process, because they share the worlds that they make.
test: lint
	pytest -n 3 --dist loadfile

# Run the tests that kill jobs and damage files, with more kills, and print what each fault costs.
faults: setup
	MADAN_FAULTS=60 pytest -q -s tests/test_faults.py tests/test_resources.py

# Run random orders of edits, commands, losses and damage, for thousands of steps.
orders: setup
	MADAN_ORDERS=3000 pytest -q -s tests/test_orders.py

# Kill whole runs of Snakemake and DVC about 100 times, and compare the bytes at the end.
kills: setup
	PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python tests/kills.py --kills 100

# Measure speed beside baselines, and how time and memory grow (docs/performance.md).
bench: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/table.py

growth: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/growth.py

clean:
	rm -rf results state logs site data/miniature data/prepared .snakemake
