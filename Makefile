# Every target installs what it needs. Type `make` for the list.

PORT ?= 8443
SITE ?= profiles/local.toml
SECONDS ?= 3600
DEMO_ARGS ?=
ARGS ?=

# An ordinary account runs the demo's servers. Started by root, the demo may thus use nothing of root's home: it gets
# a place of its own, and only the system's programs go into it.
ifeq ($(shell id -u),0)
DEMO_HOME ?= /opt/hpcspawner-demo
DEMO_VENV := $(DEMO_HOME)/venv
DEMO_NODE := $(DEMO_HOME)/node
DEMO_READY = $(DEMO_HOME)/.installed-$(SOURCES_ID)
else
DEMO_VENV := .venv
DEMO_NODE := build/npm
DEMO_READY := .venv/.installed $(DEMO_NODE)/.installed
endif

PIP := -m pip install -qq --disable-pip-version-check
# The versions and hashes of a lock, and the package itself, for which then nothing more is fetched.
LOCKED = $(PIP) --require-hashes -r
OURS := $(PIP) --no-deps --no-build-isolation -e .
PROXY := requirements/proxy requirements/node.lock requirements/proxy-npm/package-lock.json
PACKAGING := setup.cfg pyproject.toml
SOURCES = $(shell find hpcspawner profiles -name __pycache__ -prune -o -type f -print)
# Changes when a file comes or goes, which no time stamp tells.
SOURCES_ID = $(shell echo $(sort $(SOURCES)) | cksum | cut -d ' ' -f 1)

.PHONY: help
help: ## Print this list.
	@sed -n 's/^\([a-z-]*\): .*## /\1\t/p' Makefile | expand -t 12

.PHONY: demo
demo: $(DEMO_READY) ## A Hub with HTTPS on this machine, until Ctrl-C. PORT=8443 SITE=profiles/local.toml DEMO_ARGS=
	@PATH="$(abspath $(DEMO_VENV)/bin):$(abspath $(DEMO_NODE)/bin):$$PATH"; export PATH; umask 022; \
	exec hpcspawner demo --port=$(PORT) --site=$(SITE) $(DEMO_ARGS)

.PHONY: test
test: ## All tests. Some of them: make test ARGS="unit hub -- -k form"; see tests/README.md.
	@tests/run $(ARGS)

.PHONY: soak
soak: ## Three hundred servers, started and stopped while this and that fails (as root on Debian).
	@SOAK_CYCLES=300 SUITE_TIMEOUT=60m tests/run soak

.PHONY: releases
releases: ## Slurm 24.11 with Python 3.13 and the newest of both, in Debian's trixie and sid (as root on Debian).
	@for suite in trixie sid; do NEWEST=$$suite IN_NEWEST=cluster-release SUITE_TIMEOUT=60m tests/run newest || exit; done

.PHONY: fuzz
fuzz: .venv/.installed ## The fuzzer at every door. SECONDS=3600
	@tests/attack/run --seconds $(SECONDS)

.PHONY: bench
bench: .venv/.installed build/npm/.installed ## What the Hub's own work costs, measured on the test cluster. ARGS=quick, ARGS="burst waiting:100"
	@benchmarks/run $(ARGS)

.PHONY: lint
lint: ## Formatting, style, types, shell scripts.
	@tests/run lint

.PHONY: docs
docs: .venv/.installed .venv-docs/.installed ## The documentation as HTML in build/docs/html; a warning is an error.
	@rm -rf build/docs
	@.venv/bin/python docs/generate.py build/docs/source
	@.venv-docs/bin/sphinx-build -q -W --keep-going -n -b html build/docs/source build/docs/html

.PHONY: format
format: .venv/.installed ## Rewrite the Python sources in the project's format.
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

.PHONY: lock
lock: ## Renew the locked versions of what the tests install (requirements/*.lock, proxy-npm, labextension).
	@requirements/lock build/lock

.PHONY: translations
translations: .venv/.installed ## Bring the sentences in hpcspawner/locale up to date with the source, and compile them.
	@mkdir -p build
	@.venv/bin/pybabel -q extract -F pyproject.toml -k several:1,2 --no-location --sort-output --no-wrap \
		--project=hpcspawner --copyright-holder='The hpcspawner team' --output=build/hpcspawner.pot .
	@.venv/bin/pybabel -q update --domain=hpcspawner --input-file=build/hpcspawner.pot --output-dir=hpcspawner/locale \
		--no-fuzzy-matching --ignore-obsolete --ignore-pot-creation-date --no-wrap
	@.venv/bin/pybabel -q compile --domain=hpcspawner --directory=hpcspawner/locale

.PHONY: labextension
labextension: ## Build what JupyterLab and Notebook show of the job, from labextension/ (needs Node.js).
	@npm ci --no-audit --no-fund --loglevel=error --prefix labextension >/dev/null
	@npm run --silent build --prefix labextension

.PHONY: lab
lab: ## Bring up the test cluster, a real Slurm on this machine (as root on Debian).
	@tests/cluster/lab/up

.PHONY: lab-down
lab-down: ## Stop the test cluster.
	@tests/cluster/lab/down

.PHONY: clean
clean: ## Remove everything that the targets above have made here; the test cluster stays.
	rm -rf .venv .venv-5.5 .venv-docs build dist labextension/node_modules *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find hpcspawner tests -name __pycache__ -prune -exec rm -rf {} +
ifeq ($(shell id -u),0)
	@if [ -e "$(DEMO_VENV)/pyvenv.cfg" ]; then echo 'rm -rf $(DEMO_HOME)'; rm -rf "$(DEMO_HOME)"; fi
endif

# ---- what the targets need; tests/run asks for these three by name

.PHONY: environment environment-5.5 proxy
environment: .venv/.installed
environment-5.5: .venv-5.5/.installed
proxy: build/npm/.installed

.venv/.installed: $(PACKAGING) requirements/venv requirements/test.lock
	@requirements/venv .venv
	@echo 'Installing hpcspawner and its tools into .venv; this takes a minute or two the first time.'
	@umask 022; .venv/bin/python $(LOCKED) requirements/test.lock
	@umask 022; .venv/bin/python $(OURS)
	@touch $@

.venv-5.5/.installed: $(PACKAGING) requirements/venv requirements/test-5.5.lock
	@requirements/venv .venv-5.5
	@echo 'Installing hpcspawner beside JupyterHub 5.5 into .venv-5.5.'
	@umask 022; .venv-5.5/bin/python $(LOCKED) requirements/test-5.5.lock
	@umask 022; .venv-5.5/bin/python $(OURS)
	@touch $@

.venv-docs/.installed: requirements/docs.lock requirements/venv
	@requirements/venv .venv-docs
	@echo 'Installing Sphinx into .venv-docs.'
	@umask 022; .venv-docs/bin/python $(LOCKED) requirements/docs.lock
	@touch $@

build/npm/.installed: $(PROXY) .venv/.installed
	@echo "Installing JupyterHub's proxy into build/npm."
	@requirements/proxy build/npm .venv
	@touch $@

ifeq ($(shell id -u),0)
$(DEMO_HOME)/node/.installed: $(PROXY) $(DEMO_HOME)/venv/.made
	@echo "Installing JupyterHub's proxy into $(DEMO_HOME)."
	@PATH=/usr/local/bin:/usr/bin:/bin requirements/proxy $(DEMO_NODE) $(DEMO_VENV)
	@touch $@

$(DEMO_HOME)/venv/.made: requirements/venv
	@PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin requirements/venv $(DEMO_VENV)
	@touch $@

# pip builds in the source folder, where a file that is gone from the sources would live on.
$(DEMO_READY): $(PACKAGING) $(SOURCES) $(DEMO_HOME)/venv/.made $(DEMO_HOME)/node/.installed
	@echo 'Installing hpcspawner into $(DEMO_HOME); this takes a minute or two the first time.'
	@rm -rf build/lib build/bdist.* $(DEMO_HOME)/.installed-*
	@umask 022; $(DEMO_VENV)/bin/python $(PIP) '.[demo]'
	@touch $@
endif
