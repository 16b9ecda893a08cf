PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Test processes at once; each takes some 2 GB of memory.
JOBS ?= 2

# Everything is set up by the first command that needs it.
.PHONY: help install app demo demo-assets quick test test-all lint types docs bench audit coverage mutants lock licences clean

help:            ## show the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/.installed: pyproject.toml requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt -e '.[dev]'
	touch $@

install: $(VENV)/.installed  ## make the virtual environment and install everything

app: install     ## the dashboard, on the demo that comes with it
	$(BIN)/streamlit run app/main.py

demo: install    ## the Gradio demo: vanilla against concept-tuned, side by side
	$(BIN)/python app/gradio_demo.py

demo-assets: install  ## train and diagnose the demo in assets/demo anew
	$(BIN)/python assets/demo.py

quick: install   ## fine-tune both ways on planted birds and print the results
	$(BIN)/concept-tuning train --preset quick --method vanilla
	$(BIN)/concept-tuning train --preset quick --method concept-tuning

test: install    ## the tests, without the slow ones, in as many processes as JOBS says
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist loadfile

test-all: test   ## all tests, the journeys through a browser one after another: they measure time
	$(BIN)/python -m pytest -m slow -n $(JOBS) --dist loadfile --ignore=tests/journeys
	$(BIN)/python -m pytest -m slow tests/journeys

lint: install    ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install   ## type checker
	$(BIN)/mypy

docs: install    ## the API documentation, from the docstrings, into build/docs
	$(BIN)/pdoc -d google -o build/docs concept_tuning

bench: install   ## cost of a training step over vanilla, and of the concept loss at 200 classes
	$(BIN)/python benchmarks/step_cost.py
	$(BIN)/python benchmarks/concept_loss_cost.py

audit: install   ## known holes in the installed packages, and patterns of holes in the code; needs the network
	$(BIN)/python -m pip install --quiet -e '.[audit]'
	$(BIN)/bandit --quiet -c pyproject.toml -r concept_tuning app
	$(BIN)/pip-audit --skip-editable

coverage: install  ## the lines and branches of the core that its own tests without the slow ones reach; fails below 90 %
	$(BIN)/python -m pip install --quiet -e '.[audit]'
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist loadfile --cov --cov-report=term-missing:skip-covered \
		--cov-report=json:build/coverage.json --ignore=tests/app --ignore=tests/demo --ignore=tests/journeys
	$(BIN)/python tools/coverage_record.py build/coverage.json

mutants: install  ## change the code of losses, concepts and statistics place by place; fails where no test notices (some 25 minutes)
	$(BIN)/python -m pip install --quiet -e '.[audit]'
	OMP_NUM_THREADS=1 $(BIN)/python tools/mutants.py

lock: install    ## write requirements.lock anew, from the versions installed here
	$(BIN)/python tools/lock.py

licences: install  ## write THIRD_PARTY_LICENSES.md anew
	$(BIN)/python tools/licences.py

clean:           ## remove the virtual environment and caches
	rm -rf $(VENV) build dist mutants *.egg-info .pytest_cache .mypy_cache .ruff_cache
