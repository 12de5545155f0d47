PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

.PHONY: demo exercises test test-slow lab book clean

# The environment is built once, and again only when the list of dependencies changes.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "sbirlib needs Python 3.11 or newer; this is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV): up to 6 GB to download, some minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

demo: $(READY)
	@echo "The data set (half a minute), a short training (four), the notebooks (six), on 2 CPU cores of an old laptop."
	$(BIN)/python -m sbirlib data demo --out data/MiniClothes
	$(BIN)/python -m sbirlib train --preset mini_full --data.root data/MiniClothes --out outputs/demo --overwrite
	$(BIN)/python -m sbirlib evaluate --run outputs/demo --data.root data/MiniClothes --split test --json outputs/demo/test.json
	@for notebook in $(NOTEBOOKS); do echo "Running $$notebook"; \
	  PYTHONWARNINGS="ignore:Your element with mimetype" $(BIN)/jupyter nbconvert --log-level ERROR --to html \
	    --execute --output-dir outputs --config notebooks/_config/static_page.py $$notebook || exit 1; done
	@echo "Done. Open outputs/*.html, or 'make lab' to step through the notebooks yourself."
	@echo "For the commands in the README: source $(BIN)/activate"

# Writes student copies and solutions anew from their masters; copies with answers in them stay as they are.
exercises: $(READY)
	$(BIN)/python tests/tools/exercises.py

# Two processes, each with the tests of a file at a time: they share what a file sets up.
test: $(READY)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

# What takes minutes: the paper's five backbones in their real size, every fault many times, the demo's training, two
# processes that train and resume, and the notebooks headless that the browser runs already.
test-slow: $(READY)
	$(BIN)/python -m pytest -m slow --durations=0 -q

lab: $(READY)
	$(BIN)/jupyter lab --notebook-dir=. notebooks/00_start.ipynb

# What only the site needs is installed when it is first built; a second build runs no notebook again that would
# show the same.
$(VENV)/.book: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,book]'
	touch $@

book: $(VENV)/.book
	@echo "Running the notebooks and making their pages: ten minutes, or one where they were run before."
	rm -rf outputs/book outputs/.book/html
	$(BIN)/python -m sphinx -q -E -b html -c notebooks/_config -d outputs/.book/pages . outputs/.book/html
	mv outputs/.book/html outputs/book
	@echo "Done. Open outputs/book/index.html."

# Removes what the targets above made; your own runs and pages under outputs/ stay.
clean:
	rm -rf $(VENV) sbirlib.egg-info data/MiniClothes data/MiniClothes-fast data/MiniClothes-small \
	  data/MiniClothes-tiny outputs/demo outputs/notebook outputs/screens \
	  outputs/book outputs/.book notebooks/solutions \
	  $(NOTEBOOKS:notebooks/%.ipynb=outputs/%.html) .pytest_cache .hypothesis .ruff_cache .mypy_cache
