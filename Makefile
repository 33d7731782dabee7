# `make predict` and `make test` need python3 (3.11 or newer), make and git, and do the whole set-up on their first run.

IMAGE ?= docs/example.png
PROMPT ?= the red leaves
# Reference masks, one for each <mask-ref> in PROMPT: mask images, box:x0,y0,x1,y1 or point:x,y, with spaces between.
REF ?=
OUTPUT ?= outputs
MODEL ?= ras
WORKERS ?= 2
# Groups of optional dependencies to add, with commas between: import, onnx, qlora, deepspeed.
EXTRAS ?=
# LATEST=1 ignores constraints.txt: the newest versions that pyproject.toml allows.
LATEST ?=

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
# Each worker is one process on one core; torch's own threads on top of that only make them wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -n $(WORKERS)
# Through the environment, so that no character of a prompt or a path means anything to the shell.
export IMAGE PROMPT MODEL OUTPUT EXTRAS

.PHONY: help predict test test-all test-lowest test-latest test-wheel setup upgrade lint types layers scenes numbers site clean
.DEFAULT_GOAL := help

help:
	@echo "make predict [IMAGE=photo.jpg] [PROMPT='leaves left of <mask-ref>'] [REF='point:218,175'] [OUTPUT=outputs]"
	@echo "make test         ruff, mypy, import-linter, pytest       make test-all     the slow tests too"
	@echo "make test-lowest  oldest versions that are allowed        make test-latest  newest versions that are allowed"
	@echo "make test-wheel   the wheel in environments of its own    make upgrade      new constraints.txt, if tests pass"
	@echo "make lint         ruff                                    make types        mypy"
	@echo "make setup        only the environment; LATEST=1 without constraints, EXTRAS=import,onnx,qlora,deepspeed for more"
	@echo "make scenes       200 generated scenes into outputs/scenes"
	@echo "make site         the manual as a site into outputs/site"
	@echo "make numbers      the figures in README and docs/results, from docs/reports"

predict: $(READY)
	@$(PYTHON) tools/predict.py --image "$$IMAGE" --prompt "$$PROMPT" \
		$(foreach reference,$(REF),--reference "$(reference)") --model "$$MODEL" --output "$$OUTPUT"

test: lint types layers
	$(PYTEST)

test-all: lint types layers
	$(PYTEST) -m "not wheel"

test-lowest test-latest: test-%:
	@sh tools/setup.sh --$* .venv-$*
	$(subst $(VENV),.venv-$*,$(PYTEST))

test-wheel: $(READY)
	$(PYTHON) -m pytest -q -m wheel tests/wheel

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(READY)
	$(VENV)/bin/mypy

layers: $(READY)
	$(VENV)/bin/lint-imports

scenes: $(READY)
	$(PYTHON) tools/make_scenes.py --output outputs/scenes --split val --count 200 --seed 0

site: $(READY)
	$(VENV)/bin/zensical build --strict

numbers: $(READY)
	$(PYTHON) tools/_write_numbers.py

setup: $(if $(LATEST)$(EXTRAS),,$(READY))
ifneq ($(LATEST)$(EXTRAS),)
	@sh tools/setup.sh $(if $(LATEST),--latest) $(VENV)
	@touch $(READY)
endif

# Replaces constraints.txt only after the tests pass with the new versions.
upgrade:
	@mkdir -p .cache
	@sh tools/setup.sh --compile .cache/constraints.txt
	@CONSTRAINTS=.cache/constraints.txt sh tools/setup.sh .venv-upgrade
	$(subst $(VENV),.venv-upgrade,$(PYTEST))
	@mv .cache/constraints.txt constraints.txt

# Made anew when the dependencies change.
$(READY): pyproject.toml constraints.txt tools/setup.sh
	@sh tools/setup.sh $(VENV)
	@touch $@

clean:
	rm -rf outputs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
