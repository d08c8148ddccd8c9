# Each target is a line that you could type; the first one to run makes .venv. Another Python: make PYTHON=python3.12 run
PYTHON ?= python3
READY := .venv/ready

.PHONY: run test lab build bench site
run: $(READY)
	.venv/bin/python -m ptlearn tour

test: $(READY)
	.venv/bin/ruff check .
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=300 -n 2 --dist loadfile

lab: $(READY)
	.venv/bin/jupyter lab notebooks

build: $(READY)
	.venv/bin/python -m ptlearn build

bench: $(READY)
	for script in benchmarks/*.py; do .venv/bin/python $$script; done

site: $(READY)
	.venv/bin/jupyter nbconvert --to html --output-dir site solutions/*.ipynb

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q -c constraints.txt torch==2.13.0
	.venv/bin/pip install -q -c constraints.txt -e '.[dev]'
	touch $@
