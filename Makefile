# Ramify from a fresh clone: `make demo` and `make test` do all the set-up themselves.
# Needs Python >= 3.11 with pip and venv, and make. Nothing is installed outside .venv/.

VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.ready
CANDIDATES := python3 python3.13 python3.12 python3.11 python3.14 python
# override with `make PYTHON=/path/to/python3.12 ...`; extra words for pip go into PIP_FLAGS,
# extra words for pytest into ARGS
PYTHON    ?=
PIP_FLAGS ?=
ARGS      ?=

.DEFAULT_GOAL := help
.PHONY: help demo test lint types floors check format pages sizes setup clean

help:
	@echo "make demo     solve number puzzles and a sorting task by tree search with the bundled model"
	@echo "make test     run the tests (make test ARGS='tests/cache -x' runs a part)"
	@echo "make lint     ruff: style and format    make types   mypy    make floors  import-linter"
	@echo "make check    test, lint, types and floors, as CI runs them"
	@echo "make format   let ruff rewrite what it can"
	@echo "make pages    bring the file tables of docs/structure.md up to date"
	@echo "make sizes    table of file and function sizes"
	@echo "make setup    only prepare .venv (the other targets do it when needed)"
	@echo "make clean    remove .venv and caches"

demo: $(READY)
	@echo "== demo 1/2: number puzzles, solved by tree search"
	@$(BIN)/ramify run --task puzzle --count 4 --k 4 2 1 --width 2
	@echo "== demo 2/2: one sorting task"
	@$(BIN)/ramify run --task sort --count 1 --skip 4

test: $(READY)
	@echo "== tests"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 8 --dist loadfile $(ARGS)

lint: $(READY)
	@echo "== lint"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY)
	@echo "== types"
	@$(BIN)/mypy

floors: $(READY)
	@echo "== floors"
	@$(BIN)/lint-imports --no-logo

check:
	@.ci/run

format: $(READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# needs no library, so any Python will do
pages:
	@$(or $(wildcard $(BIN)/python),python3) scripts/pages

sizes: $(READY)
	@$(BIN)/python scripts/sizes

setup: $(READY)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is newer than its inputs exactly when .venv holds what they ask for.
$(READY): pyproject.toml constraints.txt
	@set -e; \
	python=""; \
	for candidate in $(or $(PYTHON),$(CANDIDATES)); do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	  then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "Ramify needs Python 3.11 or newer; none of these is one: $(or $(PYTHON),$(CANDIDATES))." >&2; \
	  echo "Install one, or name it: make PYTHON=/path/to/python3.12 <target>" >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	  echo "$$python has no venv or ensurepip module; install your system's python3-venv package." >&2; \
	  exit 1; \
	fi; \
	echo "== set-up: once, about two minutes, most of it PyTorch; later runs skip this"; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  echo "   1/3 virtual environment in $(VENV) with $$("$$python" --version)"; \
	  "$$python" -m venv --clear $(VENV); \
	else echo "   1/3 virtual environment in $(VENV) exists, kept"; fi; \
	pip="$(BIN)/python -m pip install -qq --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt"; \
	echo "   2/3 PyTorch ($$(sed -n 's/^torch==//p' constraints.txt)), the large one"; \
	$$pip numpy torch; \
	echo "   3/3 the other libraries, the development tools and Ramify itself"; \
	$$pip -e '.[dev]'; \
	touch $@; \
	echo "== set-up done"
