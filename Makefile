# One command for each thing; `make` alone lists them. Needs git, make and Python 3.11 or newer. All else goes into .venv.
#
#   PYTHON=python3.12                which Python makes .venv
#   TORCH_FLAGS="--index-url URL"    where torch comes from: the URL that PyTorch's install page gives for CPU, CUDA or ROCm
#   TORCH=torch==2.13.0              which torch
#   ARGS="-k window"                 more words for pytest
#   EDITORS="helix emacs"            which editors `make editors` installs and `make test-editors` tests
#   NVIM_0_12= NVIM_0_10= HX= EMACS= CHROMIUM=PATH   programs that are there already, instead of installing them

PYTHON ?= python3
TORCH_FLAGS ?=
ARGS ?=
EDITORS ?= neovim vscode helix emacs

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq install
NO_TORCH = pip found no $(TORCH). Copy the index URL for this machine (CPU, CUDA or ROCm) from the install page on \
pytorch.org and run: make setup TORCH_FLAGS="--index-url URL"

# On Linux a plain torch is a CUDA build of several gigabytes. A machine without an NVIDIA driver asks for the CPU build by name, so that pip, where
# its indexes have none, stops before it fetches anything. Whoever names an index has chosen the build.
HAS_NVIDIA := $(shell command -v nvidia-smi 2>/dev/null || ls /dev/nvidiactl 2>/dev/null)
PINNED_TORCH := $(shell sed -n '/^torch==/p' constraints.txt)
ifeq ($(shell uname -s)$(TORCH_FLAGS)$(HAS_NVIDIA),Linux)
TORCH ?= $(PINNED_TORCH)+cpu
else
TORCH ?= $(PINNED_TORCH)
endif

.PHONY: help setup test editors test-editors check format demo peers clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile

setup: .venv/.setup ## make .venv with the program: .venv/bin/codestral-lsp

test: .venv/.dev ## run all tests
	@$(BIN)/python -m pytest $(ARGS)

editors: .venv/.dev ## install the editors that test-editors drives, into build/editors (1.1 GB; Chromium by apt, where there is none)
	@PYTHON=$(BIN)/python tests/editors/install.sh $(EDITORS)

test-editors: editors ## type into real editors: Neovim, VS Code, Helix and Emacs
	@$(BIN)/python -m pytest -m editors tests/editors/test_frame.py $(foreach editor,$(EDITORS),$(wildcard tests/editors/$(editor) tests/editors/other/test_$(editor).py)) $(ARGS)

check: .venv/.dev ## check format, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/basedpyright

format: .venv/.dev ## format the code and put right what lint can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

demo: .venv/.setup ## read this repository and complete a line of it, in a terminal
	@$(BIN)/python benchmarks/demo.py

peers: | $(BIN)/python ## build llama.cpp, which benchmarks compare with (8 minutes of two cores, 0.4 GB in build/)
	@PYTHON=$(BIN)/python benchmarks/build_peers.sh

clean: ## remove .venv and caches; build/, where training keeps its work, stays
	@rm -rf .venv dist codestral_lsp.egg-info .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo 'error: no $(PYTHON) here, expected Python 3.11 or newer (make PYTHON=PATH names another)' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1), expected Python 3.11 or newer (make PYTHON=PATH names another)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo 'error: $(PYTHON) has no venv module, expected all of its standard library (Debian and Ubuntu: the package python3-venv)' >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv

# A torch that is there is left alone, and pip is not held to another: the lock without its line for torch.
.venv/.setup: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'setting up .venv (about 1 GB with torch for the CPU; a few minutes the first time)'
	@$(BIN)/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)' || \
	  $(INSTALL) $(TORCH_FLAGS) '$(TORCH)' || { echo 'error: $(NO_TORCH)' >&2; exit 1; }
	@sed '/^torch==/d' constraints.txt > .venv/constraints.txt
	@$(INSTALL) -c .venv/constraints.txt -e .
	@touch $@

.venv/.dev: .venv/.setup
	@echo 'adding what tests and checks need to .venv (about 1.2 GB)'
	@$(INSTALL) -c .venv/constraints.txt -e '.[dev]'
	@touch $@
