# Two commands are enough: `make demo` and `make test`. Both make their own environment in .venv.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
DEMO = runs/demo
DATA = runs/demo-data
SHOP = runs/demo-shop
PROFILE = runs/profile
SMALL = --flagfile=configs/demo.cfg --dataset=$(DATA) --batch_size=8

.PHONY: demo test parity parity4 chaos profile lint clean

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
	@rm -rf $(SHOP) $(DEMO)-behaviour
	$(RUN) -m launch.prepare --flagfile=configs/data/demo_shop.cfg --output=$(SHOP)
	$(RUN) -m launch.train --flagfile=configs/demo_behaviour.cfg --dataset=$(SHOP) --workdir=$(DEMO)-behaviour
	@for user in 1 2 3; do echo "{\"user\": \"u$$user\"}"; done > $(DEMO)-behaviour/users.jsonl
	$(RUN) -m launch.recommend --workdir=$(DEMO)-behaviour --reasons=$(DEMO) --input=$(DEMO)-behaviour/users.jsonl --top=3 \
		--output=$(DEMO)-behaviour/recommended.jsonl --overwrite

test: $(VENV)/.test
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

parity: $(VENV)/.test
	$(RUN) -m pip install -q 'torch==2.13.0' -e '.[parity]'
	$(RUN) -m pytest -m parity -n 2 --dist loadfile

# The same of tests/hf with transformers 4, in an environment of its own.
parity4:
	$(PYTHON) -m venv .venv4
	.venv4/bin/python -m pip install -q 'torch==2.13.0' 'transformers==4.57.6' -e '.[parity]'
	.venv4/bin/python -m pytest -m parity tests/hf

# A small run is killed fifty times, its checkpoints damaged in between; it must end as an unbroken one. Likewise one of two processes. Then the
# tests of what else can break: full disks, dead workers and processes, damaged shards, losses that are not finite.
FAULTS = tests/train/test_integrity.py tests/train/test_interruptions.py tests/train/test_full_disk.py tests/train/test_nonfinite.py \
	tests/train/test_workdir.py tests/data/test_streams.py tests/parallel/test_cluster.py tests/parallel/test_changing_processes.py
chaos: $(VENV)/.test
	$(RUN) -m profiling.chaos --kills=50
	$(RUN) -m profiling.chaos --kills=10 --chaos_processes=2
	$(RUN) -m pytest -n 2 --dist loadfile $(FAULTS)

# What a training step spends, holds and sends, on the demo's model (docs/profiling.md): tables, last lines and pictures in runs/profile.
profile: $(VENV)/.base
	@mkdir -p $(PROFILE)
	@test -e $(DATA)/dataset.json || $(RUN) -m launch.prepare --flagfile=configs/data/demo.cfg --output=$(DATA)
	$(RUN) -m profiling.trace $(SMALL) --profile_steps=3:12 --output=$(PROFILE)/trace > $(PROFILE)/trace.txt
	$(RUN) -m profiling.roofline $(SMALL) --output=$(PROFILE) > $(PROFILE)/roofline.txt
	$(RUN) -m profiling.memory $(SMALL) --memory=1 > $(PROFILE)/memory.txt
	$(RUN) -m profiling.plan $(SMALL) --batch_size=64 --mesh='data:8;fsdp:8;data:4,tensor:2' > $(PROFILE)/plan.txt
	$(RUN) -m profiling.hlo $(SMALL) --output=$(PROFILE)/hlo > $(PROFILE)/hlo.txt
	$(RUN) -m profiling.hlo $(SMALL) --watch=0 --remat=full --output=$(PROFILE)/hlo-remat --against=$(PROFILE)/hlo > $(PROFILE)/hlo-remat.txt
	$(RUN) -m profiling.trace $(SMALL) --profile_steps=3:12 --remat=full --output=$(PROFILE)/trace-remat > $(PROFILE)/trace-remat.txt
	$(RUN) -m profiling.compare $(PROFILE)/trace.txt $(PROFILE)/trace-remat.txt > $(PROFILE)/compare.txt
	@cd $(PROFILE) && for name in trace roofline memory plan hlo hlo-remat compare; do echo; echo "== $$name.txt"; grep -v '^{' $$name.txt; done

lint: $(VENV)/.test
	$(RUN) -m ruff check .

clean:
	rm -rf $(VENV) .venv4 runs datasets
