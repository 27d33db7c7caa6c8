# `make demo` and `make test` need Python 3.11 or newer and make; the rest is set up in .venv.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
WORKERS ?= 2

.PHONY: demo test lint types unit attack budgets bench bench-full armv7 oracle clean

demo: $(READY)  ## run the main job: a node service, killed halfway and started again
	$(BIN)/storebridge demo $(DEMO)

test: lint types unit  ## everything that must hold before a change lands

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(READY)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

unit: $(READY)
	$(BIN)/pytest -n $(WORKERS) --dist worksteal $(PYTEST)

attack: $(READY)  ## long crash, kill, damage and endurance tests
	STOREBRIDGE_ATTACK=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal -m attack --timeout 1200 $(PYTEST)

budgets: $(READY)  ## what each operation costs, against what it may; UPDATE=1 accepts it
	$(BIN)/python -m tests.budgets $(if $(UPDATE),--update)

bench: $(READY)  ## measure beside hand-written code and peers, alternating, as ratios
	$(BIN)/pytest benchmarks --benchmark-disable-gc --benchmark-columns=median,iqr,rounds -q -s $(PYTEST)

bench-full: $(READY)  ## the same with a million records where it says so: takes long
	STOREBRIDGE_BENCH_FULL=1 $(MAKE) bench

armv7: $(READY)  ## run the suite and measure on 32-bit ARM under qemu; needs Debian and root, takes an hour
	sh benchmarks/armv7/run.sh $(CURDIR)/.armv7

oracle:  ## build Go's own bbolt and the writer that tests compare with; needs Go
	sh tests/formats/oracle/build.sh

clean:
	rm -rf .venv .oracle .mypy_cache .ruff_cache .hypothesis dist
