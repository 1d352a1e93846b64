# Every target makes what it needs, from nothing: .venv is created by the first that wants it.
PYTHON ?= python3
BIN := .venv/bin
RUN ?= runs/demo

# Tiny models: one thread each, two files at a time.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile
TESTED := .venv/demo .venv/generate .venv/dev .venv/agreement

.PHONY: demo test test-fast hostile coverage check hooks docs bench detection study clean

demo: .venv/demo
	$(BIN)/thresher demo --output $(RUN)

test: $(TESTED)
	$(PYTEST)

# Every room, in under two minutes; without what trains at length or on the packaged models.
test-fast: $(TESTED)
	$(PYTEST) -m 'not slow'

# Inputs that nobody should accept and bytes that nobody wrote: 1,000 and 100,000 of them, some 40 minutes.
hostile: $(TESTED)
	THRESHER_FUZZ=100000 $(PYTEST) tests/hostile

# The whole suite again, and the share of lines that it runs; fails below what pyproject.toml asks.
coverage: $(TESTED)
	$(PYTEST) --cov --cov-report=term

check: .venv/dev .venv/docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# From now on git commits only what passes `make check`.
hooks: .venv/dev
	$(BIN)/pre-commit install

# The documentation, into build/site; a broken link or a warning fails it.
docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: .venv/demo
	$(BIN)/python benchmarks/bench.py

# Some hours; goes on where it was stopped. GLUE names a folder of GLUE tasks (train.jsonl, validation.jsonl each).
detection: .venv/demo
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[confident]'
	for step in find act ceiling; do \
		for part in 0/2 1/2; do \
			OMP_NUM_THREADS=1 $(BIN)/python benchmarks/detection.py $$step --part $$part --output runs/detection \
				$(if $(GLUE),--glue-dir $(GLUE)) & jobs="$$jobs $$!"; \
		done; \
		for job in $$jobs; do wait $$job || exit 1; done; jobs=; \
	done
	$(BIN)/python benchmarks/detection.py tables --output runs/detection

# The paper's experiment on MiniLM, and a decoder; hours, and goes on where it was stopped. GLUE as above.
study: .venv/demo .venv/generate
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[compare]' --editable ./study
	for size in minilm smollm2; do \
		$(BIN)/thresher-study study/configs/small/$$size.yaml --workers 2 --output runs/$$size $(if $(GLUE),--glue-dir $(GLUE)) || exit 1; \
	done

.venv/base: constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/demo: .venv/base requirements/demo.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements/demo.txt
	touch $@

.venv/generate: .venv/base requirements/generate.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements/generate.txt
	touch $@

.venv/dev: .venv/base study/pyproject.toml
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]' --editable './study[slurm,ray]'
	touch $@

.venv/docs: .venv/base
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

.venv/agreement: .venv/base requirements/agreement.txt
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt --requirement requirements/agreement.txt
	touch $@

clean:
	rm -rf .venv build runs
