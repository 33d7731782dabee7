# `make predict` and `make test` need python3 (3.11 or newer), make and git, and do the whole set-up on their first run.

IMAGE ?= docs/example.png
PROMPT ?= the red leaves
# Reference masks, one for each <mask-ref> in PROMPT: mask images, box:x0,y0,x1,y1 or point:x,y, with spaces between.
REF ?=
OUTPUT ?= outputs
MODEL ?= ras
WORKERS ?= 2
# Groups of optional dependencies to add, with commas between: import, qlora, ray, regions, deepspeed.
EXTRAS ?=

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
# Each worker is one process on one core; torch's own threads on top of that only make them wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -n $(WORKERS)
# Through the environment, so that no character of a prompt means anything to the shell.
export PROMPT

.PHONY: help predict test test-all setup lint types layers scenes clean
.DEFAULT_GOAL := help

help:
	@echo "make predict [IMAGE=photo.jpg] [PROMPT='leaves left of <mask-ref>'] [REF='point:218,175'] [OUTPUT=outputs]"
	@echo "make test      ruff, mypy, import-linter, pytest         make test-all   the slow tests too"
	@echo "make lint      ruff                                      make types      mypy"
	@echo "make setup EXTRAS=qlora                                  an optional package: import, qlora, ray, regions, deepspeed"
	@echo "make scenes    200 generated scenes into outputs/scenes  make setup      only the virtual environment"

predict: $(READY)
	@$(PYTHON) tools/predict.py --image $(IMAGE) --prompt "$$PROMPT" \
		$(foreach reference,$(REF),--reference "$(reference)") --model "$(MODEL)" --output "$(OUTPUT)"

test: lint types layers
	$(PYTEST)

test-all: lint types layers
	$(PYTEST) -m ""

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(READY)
	$(VENV)/bin/mypy

layers: $(READY)
	$(VENV)/bin/lint-imports

scenes: $(READY)
	$(PYTHON) tools/make_scenes.py --output outputs/scenes --split val --count 200 --seed 0

setup: $(READY)
ifneq ($(EXTRAS),)
	@sh tools/setup.sh $(VENV) $(EXTRAS)
endif

# Made anew when the dependencies change.
$(READY): pyproject.toml tools/setup.sh
	@sh tools/setup.sh $(VENV)
	@touch $@

clean:
	rm -rf outputs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
