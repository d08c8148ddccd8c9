# Each target is a line that you could type; the first one to run makes .venv. Another Python: make PYTHON=python3.12 run
# On Linux, without a GPU: make TORCH_INDEX=<PyTorch's own index of CPU builds> run saves 2.5 GB; see README.md.
PYTHON ?= python3
TORCH_INDEX ?=
READY := .venv/ready
# the solutions that take longest: make solutions runs them, make test does not; 14 needs a model that make real fetches
LONG := 00 01 02 03 04 05 06 09 10 11 12 13 14 15 16
# memory of tensors that are made and dropped is kept by glibc, not handed back to the system and asked for again
KEEP := MALLOC_TRIM_THRESHOLD_=2000000000 MALLOC_MMAP_THRESHOLD_=2000000000 MALLOC_TOP_PAD_=67108864

# compiled modules are kept wherever that is switched off: transformers takes 8 s more to import without them
unexport PYTHONDONTWRITEBYTECODE

# what is wrong with $(PYTHON), in a few words; nothing where it will do
PROBLEM = $(shell $(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.stdout.write("is " + sys.version.split()[0]); \
	sys.version_info >= (3, 11) and __import__("ensurepip")' 2>/dev/null || echo cannot make an environment)

.PHONY: run test real solutions classroom lab build seeds blanks bench site site-test wrong-answers interactive
run: $(READY)
	.venv/bin/python -m ptlearn tour

test: $(READY)
	.venv/bin/ruff check .
	$(KEEP) OMP_NUM_THREADS=1 .venv/bin/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=300 -n 2 --dist loadfile --no-loadscope-reorder \
		$(LONG:%=--ignore-glob='solutions/%*')

solutions: $(READY)
	$(KEEP) OMP_NUM_THREADS=1 .venv/bin/python -m pytest --nbval-lax -n 2 --dist loadfile solutions --ignore-glob='solutions/14*'

real: $(READY)
	.venv/bin/ptlearn get smollm2-135m
	.venv/bin/python -m pytest tests/test_claims_14.py
	.venv/bin/python lessons/14_real_model.py

classroom: $(READY)
	PTLEARN_CLASSROOM=1 OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 tests/course/test_grading_lessons.py

lab: $(READY)
	.venv/bin/python -m ptlearn copy
	.venv/bin/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/work

build: $(READY)
	.venv/bin/python -m ptlearn build

seeds: $(READY)
	PTLEARN_SEEDS=30 OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 tests/course/test_exercises.py

blanks: $(READY)
	.venv/bin/python tests/course/blanks.py

wrong-answers: $(READY)
	.venv/bin/python tests/course/wrong_answers_page.py

interactive: $(READY)
	OMP_NUM_THREADS=1 .venv/bin/python docs/interactive/record.py

bench: $(READY)
	.venv/bin/python benchmarks/report.py

site: $(READY)
	.venv/bin/pip install --no-compile -q -c constraints.txt -e '.[site]'
	.venv/bin/python docs/site/make_site.py

site-test: site
	.venv/bin/pip install --no-compile -q -c constraints.txt -e '.[site-test]'
	npm install --silent --no-save --no-audit --prefix build/site axe-core@4.14.1
	PTLEARN_SITE=1 .venv/bin/python -m pytest tests/course/test_site_in_browser.py

$(READY): pyproject.toml constraints.txt
	$(if $(PROBLEM),$(error ptlearn needs Python 3.11 or newer (on Debian with python3-venv): $(PYTHON) $(PROBLEM). Name another one: make PYTHON=python3.12 run))
	$(PYTHON) -m venv --clear .venv
	$(if $(TORCH_INDEX),.venv/bin/pip install --no-compile -c constraints.txt --no-deps --index-url $(TORCH_INDEX) torch)
	.venv/bin/pip install --no-compile -c constraints.txt -e '.[dev]'
	touch $@
