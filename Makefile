# make miou: from a clone to results/miou.csv.  make test: lint, types and every test that this
# machine can run.  make faults: the tests that harm jobs, with more kills.  VENV=DIR says where
# the virtual environment lies.
VENV ?= .venv
PYTHON ?= python3.11
CORES ?= 8
BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)

.PHONY: setup miou report publish schema overview lint test faults orders bench growth clean

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

miou: setup
	snakemake --cores $(CORES) results/miou.csv
	@cut -d, -f2-4,24-26 results/miou.csv

# Tables and figures of the runs that are finished, and the page that shows them.
report: setup
	snakemake --cores $(CORES) finished
	snakemake --report results/report.html finished
	snakemake --report results/report.zip finished

# Of the miniature, for those who read before they run; refused where it is not params.yaml's.
publish: setup
	snakemake --cores $(CORES) results/miou.csv figures
	madan publish docs/miniature

schema: setup
	$(BIN)/python -c "import json, madan.config.schema as s; print(json.dumps(s.Params.model_json_schema(), indent=1))" \
	  > workflow/schemas/params.schema.json

# The list of modules in docs/overview.md, from their docstrings.
overview: setup
	$(BIN)/python docs/list_modules.py

lint: setup
	ruff format --check madan tests benchmarks docs
	ruff check madan tests benchmarks docs
	$(BIN)/python docs/list_modules.py --check
	mypy
	snakefmt --check Snakefile workflow
	$(BIN)/python tests/snakemake_lint.py
	$(BIN)/python tests/shell_lint.py

# One file's tests stay in one process: they share the worlds they make.
test: lint
	pytest -n 3 --dist loadfile

# The tests that kill jobs and damage files, with more kills, and the table of what was lost.
faults: setup
	MADAN_FAULTS=60 pytest -q -s tests/test_faults.py

# Random orders of edits, commands, losses and damage, thousands of steps.
orders: setup
	MADAN_ORDERS=3000 pytest -q -s tests/test_orders.py

# Paired comparisons, and how time and memory grow (docs/performance.md).
bench: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/table.py

growth: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/growth.py

clean:
	rm -rf results state logs data/miniature data/prepared .snakemake
