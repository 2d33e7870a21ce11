# Two commands are enough: `make demo` and `make test`. Both make their own environment in .venv.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
DEMO = runs/demo
DATA = runs/demo-data

.PHONY: demo test parity parity4 chaos lint clean

$(VENV)/.base: pyproject.toml
	$(PYTHON) -c "import sys; sys.exit('rgjax needs Python 3.11 or newer; set PYTHON=python3.11' if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -q --upgrade pip
	$(RUN) -m pip install -q -e .
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(RUN) -m pip install -q -e '.[test]'
	touch $@

demo: $(VENV)/.base
	@rm -rf $(DEMO) $(DATA)
	$(RUN) -m launch.prepare --flagfile=configs/data/demo.cfg --output=$(DATA)
	$(RUN) -m launch.train --flagfile=configs/demo.cfg --dataset=$(DATA) --workdir=$(DEMO)
	$(RUN) -m launch.evaluate --workdir=$(DEMO) --split=test
	$(RUN) -m launch.export --workdir=$(DEMO) --output=$(DEMO)/export
	$(RUN) -m launch.report --workdir=$(DEMO)
	$(RUN) -m launch.show --workdir=$(DEMO) --count=10

test: $(VENV)/.test
	$(RUN) -m pytest

parity: $(VENV)/.test
	$(RUN) -m pip install -q 'torch==2.13.0' -e '.[parity]'
	$(RUN) -m pytest -m parity

# The same of tests/hf with transformers 4, in an environment of its own.
parity4:
	$(PYTHON) -m venv .venv4
	.venv4/bin/python -m pip install -q 'torch==2.13.0' 'transformers==4.57.6' -e '.[parity]'
	.venv4/bin/python -m pytest -m parity tests/hf

# A small run is killed fifty times, its checkpoints damaged in between; it must end as an unbroken one.
chaos: $(VENV)/.base
	$(RUN) -m profiling.chaos --kills=50

lint: $(VENV)/.test
	$(RUN) -m ruff check .

clean:
	rm -rf $(VENV) .venv4 runs datasets
