# `make demo` runs the main job on real pictures, `make test` the tests; both need nothing but python3.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all mutants test-matrix test-oldest-pytest test-gradio test-engines lint docs bench bench-quick profiles clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[examples]" --group test
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python examples/quickstart.py

# Tests mostly wait for processes, so two at a time take less than half the time, also on 2 cores.
test: $(VENV)/.installed
	$(BIN)/python tests/conformance/fetch.py
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

# Also what takes long, and everything with the oldest Rerun SDK and the other Pythons that this machine has.
test-all: $(VENV)/.installed
	$(BIN)/python tests/conformance/fetch.py
	$(BIN)/python -m pytest -n 2 --dist worksteal
	$(BIN)/python tests/matrix.py
	$(MAKE) test-oldest-pytest
	$(MAKE) test-engines
	.venv-engines/bin/python -m pytest -m slow $(wildcard tests/test_engine*.py)

# Makes some 200 changes to hard lines of mpr in a copy, one by one, and says which of them the tests notice.
mutants: $(VENV)/.installed
	$(BIN)/python tests/mutants.py

# The heart of the tests with the oldest Rerun SDK and the other Pythons.
test-matrix: $(VENV)/.installed
	$(BIN)/python tests/matrix.py -n 2 --dist worksteal tests/test_promise.py tests/test_data_path.py tests/test_ends.py

# The pytest plugin with the oldest pytest that it is for; without the long test that patches every function, and without
# the tests of the page, which do not depend on pytest.
test-oldest-pytest: $(VENV)/.installed
	$(BIN)/python tests/matrix.py --oldest-pytest -n 2 -m "not slow" tests/pytest_plugin \
	  --ignore=tests/pytest_plugin/test_patches.py --ignore=tests/pytest_plugin/test_page.py

# The viewer in Gradio's pages chooses the SDK's version, so this has an environment of its own. With an older Jupyter
# kernel, too, which can hear of a page within a cell.
test-gradio: .venv-gradio/.installed
	.venv-gradio/bin/python -m pytest tests/test_gradio.py tests/test_notebook.py

.venv-gradio/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-gradio
	.venv-gradio/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv-gradio/bin/python -m pip install --quiet --no-compile --editable ".[gradio]" --group test "ipykernel<7"
	touch $@

# Ray, Dask and PyTorch bring many packages, so this has an environment of its own. The tests take about six minutes.
test-engines: .venv-engines/.installed
	.venv-engines/bin/python -m pytest -m "not slow" -k engine $(wildcard tests/test_engine*.py) tests/test_readme.py

.venv-engines/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-engines
	.venv-engines/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv-engines/bin/python -m pip install --quiet --no-compile --editable . --group engines
	touch $@

# Warnings are errors, and nothing is fetched.
docs: .venv-docs/.installed
	.venv-docs/bin/mkdocs build --strict --site-dir site

.venv-docs/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv-docs/bin/python -m pip install --quiet --group docs
	touch $@

# Ruff and mypy judge all the code. Pyright, by which many editors judge a user's code, judges the public interface: types
# are known for all of it, and wrong calls are found. It takes the modules from the Python that is first on the PATH.
PYRIGHT = PYRIGHT_PYTHON_IGNORE_WARNINGS=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pyright
lint: $(VENV)/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pip install --quiet --group types
	$(PYRIGHT) tests/typed_calls.py
	$(PYRIGHT) --verifytypes mpr --ignoreexternal >$(VENV)/types.txt || { cat $(VENV)/types.txt; exit 1; }

# Into benchmarks/results; some 10 minutes on 2 cores that have nothing else to do.
bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m benchmarks

# Fewer repetitions and less data, into benchmarks/results/quick, which is not kept.
bench-quick: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m benchmarks --quick

# The hot paths of a worker and of the parent, into benchmarks/profiles.
profiles: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m benchmarks.profiles

clean:
	rm -rf $(VENV) .venv-* site .mypy_cache .ruff_cache .pytest_cache .hypothesis .cpython-tests
