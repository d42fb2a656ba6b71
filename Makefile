# make lab        JupyterLab on the course
# make test       lint, unit tests, and every lesson against its stored outputs
# make test-fast  the same without running the lessons
# make refresh    run the lessons and store their outputs; make refresh LESSONS="02 03" for some
# make clean      remove what was built; .venv and data stay

PYTHON ?= python3
LESSONS ?=
BIN = .venv/bin
NBVAL = --nbval --nbval-current-env --nbval-sanitize-with tests/sanitize.cfg
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope
ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: lab test test-fast lint refresh constraints clean

lab: .venv/.installed
	$(BIN)/jupyter lab $(ROOT) --LabApp.default_url=/lab/tree/notebooks/00_welcome.ipynb

test: lint
	$(PYTEST) $(NBVAL) tests notebooks

test-fast: lint
	$(PYTEST) tests

lint: .venv/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

refresh: .venv/.installed
	$(BIN)/python tools/refresh $(LESSONS)

constraints:
	uv export --all-extras --no-hashes --no-annotate --no-header --no-emit-project -o constraints.txt

clean:
	rm -rf build .pytest_cache .ruff_cache

# Installs once, and again when pyproject.toml or constraints.txt changed. With pip when there is no uv.
.venv/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) here. Name a Python of 3.11 or later: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; $(PYTHON) is $$($(PYTHON) -V). Name another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	if command -v uv >/dev/null; then \
	  uv venv --allow-existing --python $(PYTHON) .venv && uv pip install --python $(BIN)/python -c constraints.txt -e '.[test]'; \
	else \
	  $(PYTHON) -m venv .venv && $(BIN)/python -m pip install -c constraints.txt -e '.[test]'; \
	fi
	touch $@
