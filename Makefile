# Every target makes what it needs, from nothing: .venv is created by the first that wants it.
PYTHON ?= python3
BIN := .venv/bin
RUN ?= runs/demo

# Tiny models: one thread each, two files at a time.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile
# Wheels in the locked versions, with the hashes they had when they were locked; nothing is built, so nothing runs.
LOCKED := -m pip install --quiet --no-deps --only-binary :all: --require-hashes --requirement
OURS := -m pip install --quiet --no-deps --no-build-isolation --editable
TOOLS := build/tools/bin
TESTED := .venv/demo .venv/generate .venv/dev .venv/agreement

.PHONY: demo test test-fast hostile coverage check hooks docs bench detection study lock release clean

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
detection: .venv/demo .venv/dev
	for step in find act ceiling; do \
		for part in 0/2 1/2; do \
			OMP_NUM_THREADS=1 $(BIN)/python benchmarks/detection.py $$step --part $$part --output runs/detection \
				$(if $(GLUE),--glue-dir $(GLUE)) & jobs="$$jobs $$!"; \
		done; \
		for job in $$jobs; do wait $$job || exit 1; done; jobs=; \
	done
	$(BIN)/python benchmarks/detection.py tables --output runs/detection

# The paper's experiment on MiniLM, and a decoder; hours, and goes on where it was stopped. GLUE as above.
study: .venv/demo .venv/generate .venv/dev
	for size in minilm smollm2; do \
		$(BIN)/thresher-study study/configs/small/$$size.yaml --workers 2 --output runs/$$size $(if $(GLUE),--glue-dir $(GLUE)) || exit 1; \
	done

# Both distributions, built twice and tried in empty environments, with what they bring: into build/release.
release: build/tools
	release/make.sh

# The locks anew, from constraints.txt and what pyproject.toml asks; UPGRADE=--upgrade takes what is newer of the rest.
# dev.txt has most of the packages; the others keep to its versions, for they share an environment with it.
# The documentation's want Python 3.11.5.
LOCK = $(TOOLS)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --constraint constraints.txt \
	--config-file requirements/uv.toml --custom-compile-command 'make lock' --no-emit-package torch $(UPGRADE)
BESIDE := --constraint requirements/dev.txt
lock: build/tools
	$(LOCK) --no-emit-package thresher --no-emit-package thresher-study -o requirements/dev.txt requirements/dev.in
	$(LOCK) $(BESIDE) -o requirements/runtime.txt pyproject.toml
	$(LOCK) $(BESIDE) -o requirements/build.txt requirements/build.in
	$(subst 3.11,3.11.5,$(LOCK)) $(BESIDE) -o requirements/docs.txt --extra docs pyproject.toml
	$(LOCK) --no-deps -o requirements/agreement.txt requirements/agreement.in
	$(LOCK) -o requirements/release.txt requirements/release.in

.venv/base: constraints.txt pyproject.toml requirements/runtime.txt requirements/build.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python $(LOCKED) requirements/runtime.txt
	$(BIN)/python $(LOCKED) requirements/build.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python $(OURS) .
	touch $@

.venv/demo: .venv/base requirements/demo.txt
	$(BIN)/python $(LOCKED) requirements/demo.txt
	touch $@

.venv/generate: .venv/base requirements/generate.txt
	$(BIN)/python $(LOCKED) requirements/generate.txt
	touch $@

.venv/dev: .venv/base requirements/dev.txt study/pyproject.toml
	$(BIN)/python $(LOCKED) requirements/dev.txt
	$(BIN)/python $(OURS) ./study
	touch $@

.venv/docs: .venv/base requirements/docs.txt
	$(BIN)/python $(LOCKED) requirements/docs.txt
	touch $@

.venv/agreement: .venv/base requirements/agreement.txt
	$(BIN)/python $(LOCKED) requirements/agreement.txt
	touch $@

build/tools: requirements/release.txt
	test -x $(TOOLS)/python || $(PYTHON) -m venv $@
	$(TOOLS)/python $(LOCKED) requirements/release.txt
	touch $@

clean:
	rm -rf .venv build runs
