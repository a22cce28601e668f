# The commands for people and CI.  `make` alone lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready
NPM    ?= npm

.PHONY: help install serve quick test test-exhaustive test-scale compile-gpu test-page pictures clients test-clients test-sdks test-tools \
    test-aider lock-clients sanitize check format lock audit lint-image image clean
help:           ## list these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

install: $(READY)   ## make .venv with the command gptoss in it
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $(READY)

serve: $(READY)     ## start the server on 127.0.0.1:8000, with the bundled demo model unless MODEL=DIR is given
	$(BIN)/gptoss serve $(if $(MODEL),--model $(MODEL)) $(ARGS)

TEST = $(BIN)/python -m pytest -n 2 --dist loadfile
LONG = bench clients demo docs/test_docs.py engine/disk engine/ranks engine/test_invariances.py \
    engine/test_mutants.py engine/test_sampling.py engine/test_traffic.py gptoss/hub gptoss/launch gptoss/ranks \
    gptoss/terminal gptoss/test_batch.py gptoss/test_bench.py gptoss/test_command_line.py \
    gptoss/test_standard_streams.py gptoss/test_verify.py language/constraints model/backends model/loading \
    model/parallel server/api/messages server/api/responses server/dialogue server/front server/page \
    server/test_bounds_everywhere.py server/test_endings.py server/test_pressure.py server/test_replicas.py \
    server/test_scripted.py server/test_timeouts.py server/test_traces.py tools
quick: $(READY)     ## run a third of the tests, the quick ones: no backends, processes, stores or load
	$(TEST) -m "not exhaustive and not gpu" $(LONG:%=--ignore=tests/%) $(ARGS)
test: $(READY)      ## run the tests
	$(TEST) -m "not exhaustive and not gpu" $(ARGS)
test-exhaustive: $(READY)   ## run the long tests: all cases of the tests of which `make test` runs a few
	$(TEST) -m "exhaustive and not gpu" $(ARGS)

# Ray has an environment of its own, which also uses the packages of .venv; both have the same versions.
SCALE = .venv-scale
test-scale: $(SCALE)/.ready     ## run the tests of many servers: Ray Serve, and PostgreSQL (apt-get install postgresql)
	TEST_SCALE=all $(SCALE)/bin/python -m pytest tests/scale tests/server/dialogue/test_stores.py \
	    tests/server/test_replicas.py -ra $(ARGS)
$(SCALE)/.ready: pyproject.toml | $(READY)
	$(PYTHON) -m venv $(SCALE)
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	    > "$$(echo $(SCALE)/lib/python3*/site-packages)/all_of_the_server.pth"
	$(BIN)/pip freeze --exclude-editable > $(SCALE)/constraints.txt
	$(SCALE)/bin/pip install --quiet --disable-pip-version-check --constraint $(SCALE)/constraints.txt "$$( \
	    $(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["ray"])')"
	@touch $@

PAGE = tests/server/page/browser
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser)
test-page: $(VENV)/.browser $(PAGE)/node_modules    ## run the tests of the page in CHROMIUM (apt-get install chromium)
	TEST_PAGE=all CHROMIUM=$(CHROMIUM) $(BIN)/python -m pytest $(PAGE) $(ARGS)
pictures: $(VENV)/.browser  ## take the pictures of the page in docs/ again
	CHROMIUM=$(CHROMIUM) $(BIN)/python -m $(subst /,.,$(PAGE)).pictures
$(VENV)/.browser: pyproject.toml | $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[browser]'
	@touch $@
$(PAGE)/node_modules: $(PAGE)/package-lock.json
	$(NPM) ci --prefix $(PAGE) --no-audit --no-fund --silent
	@touch $@

CLIENTS     = .venv-clients
UV          = $(CLIENTS)/uv/bin/uv --quiet --system-certs
RUN_CLIENTS = TEST_CLIENTS=$(if $(NPM),all,python) SERVER_PYTHON=$(abspath $(BIN))/python PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
CLIENT_TEST = bin/python -m pytest -p pytest_timeout --confcutdir=tests/clients --timeout=900 -ra $(ARGS)
NODE_CLIENTS = $(if $(NPM),tests/clients/node/node_modules tests/clients/agents/node_modules)
clients: $(READY) $(CLIENTS)/sdks/.ready $(CLIENTS)/tools/.ready $(CLIENTS)/aider/.ready $(NODE_CLIENTS)    ## install what test-clients runs
test-clients: $(READY) test-sdks test-tools test-aider     ## test clients of other projects with the demo model; NPM=: only those in Python
test-sdks: $(CLIENTS)/sdks/.ready $(NODE_CLIENTS)
	$(RUN_CLIENTS) $(CLIENTS)/sdks/$(CLIENT_TEST) -p pytest_asyncio.plugin -p pytest_benchmark.plugin \
	    -p pytest_recording.plugin -o asyncio_mode=auto -o asyncio_default_fixture_loop_scope=session \
	    -o asyncio_default_test_loop_scope=session tests/clients/sdks
test-tools: $(CLIENTS)/tools/.ready
	$(RUN_CLIENTS) $(CLIENTS)/tools/$(CLIENT_TEST) tests/clients/tools
test-aider: $(CLIENTS)/aider/.ready
	$(RUN_CLIENTS) $(CLIENTS)/aider/$(CLIENT_TEST) tests/clients/aider

# guidellm imports torch: it uses that of .venv, after the packages of its own environment.  gpt-oss's evals require
# Python 3.12, but work without it.
$(CLIENTS)/tools/.ready: tests/clients/tools.lock tests/clients/evals.txt | $(READY) $(CLIENTS)/uv
	$(UV) venv --clear --python $(BIN)/python $(CLIENTS)/tools
	$(UV) pip install --python $(CLIENTS)/tools --no-deps -r $<
	packages="$$(echo $(CLIENTS)/tools/lib/python3*/site-packages)" && \
	    $(UV) pip install --python $(CLIENTS)/tools --python-version 3.12 --target "$$packages" \
	        --no-deps -r tests/clients/evals.txt && \
	    $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	    > "$$packages/torch_of_the_server.pth"
	@touch $@
$(CLIENTS)/sdks/.ready $(CLIENTS)/aider/.ready: $(CLIENTS)/%/.ready: tests/clients/%.lock | $(READY) $(CLIENTS)/uv
	$(UV) venv --clear --python $(BIN)/python $(@D)
	$(UV) pip install --python $(@D) --no-deps -r $<
	@touch $@
$(CLIENTS)/uv: | $(READY)   # eight times as fast as pip
	$(BIN)/pip install --quiet --disable-pip-version-check --target $@ 'uv>=0.9,<0.14'
tests/clients/node/node_modules: tests/clients/node/package-lock.json
	$(NPM) ci --prefix tests/clients/node --no-audit --no-fund --silent
	@touch $@
# Not `npm ci`: a registry may lack opencode's programs for other systems, and then the lock lacks them too.
tests/clients/agents/node_modules: tests/clients/agents/package-lock.json
	$(NPM) install --prefix tests/clients/agents --no-save --no-audit --no-fund --silent
	@touch $@
lock-clients: $(CLIENTS)/uv     ## update the locked clients, as far as tests/clients/*.txt and package.json allow
	$(LOCK) tests/clients/sdks.txt -o tests/clients/sdks.lock
	$(LOCK) tests/clients/aider.txt -o tests/clients/aider.lock
	$(LOCK) tests/clients/tools.txt -o tests/clients/tools.lock --override tests/clients/without-torch.txt
	$(NPM) update --prefix tests/clients/node --no-audit --no-fund
	$(NPM) update --prefix tests/clients/agents --no-audit --no-fund
LOCK = $(UV) pip compile --upgrade --universal --python-version 3.11 --no-header --no-annotate

sanitize: $(READY)  ## run the CPU kernels' tests with the address and undefined-behaviour sanitizers
	$(BIN)/python model/backends/cpu/toolchain.py build/sanitized.so -O1 -g \
	    -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0 GPTOSS_CPU_LIBRARY=build/sanitized.so \
	    $(BIN)/python -m pytest tests/model/backends -k "cpu and not demo and not elsewhere and not memory" $(ARGS)

# The image's version of Triton, which is not the newest, because its compiler makes the kernels that run on a GPU.
LOCKED_TRITON = .venv-triton/$(shell sed -n 's/^triton==\([^ ]*\).*/\1/p' deploy/requirements/cuda.txt)
compile-gpu: $(READY)   ## compile the GPU kernels with the image's Triton, without a GPU; fails if registers spill
	@test -d $(LOCKED_TRITON) || $(BIN)/pip install --quiet --disable-pip-version-check --no-deps \
	    --target $(LOCKED_TRITON) triton==$(notdir $(LOCKED_TRITON))
	PYTHONPATH=$(LOCKED_TRITON) $(BIN)/python -m bench.gpu.compile --steps 1x1,24x1,1x512 $(ARGS)

check: $(READY)     ## formatter, linter, type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)    ## let the formatter and the linter fix what they can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

TOOLS = .venv-tools
$(TOOLS)/.ready: deploy/requirements/tools.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

lock: $(TOOLS)/.ready   ## lock the image's packages again, and list their licences; ARGS=--upgrade takes newer ones
	$(TOOLS)/bin/python deploy/image/lock.py $(ARGS)
	$(TOOLS)/bin/python deploy/image/licences.py

audit: $(TOOLS)/.ready  ## ask whether a locked package has a known vulnerability
	$(TOOLS)/bin/pip-audit --strict --require-hashes --disable-pip $(ARGS) \
	    -r deploy/requirements/cuda.txt -r deploy/requirements/build.txt   # cpu.txt is a part of cuda.txt; a test holds it

lint-image: $(TOOLS)/.ready     ## check the Dockerfile
	$(TOOLS)/bin/hadolint Dockerfile

image:          ## build and test the image without a Docker engine; needs root and some GB; ARGS="--variant cuda"
	.ci/image $(ARGS)

clean:          ## remove the environment and caches
	rm -rf $(VENV) $(TOOLS) $(SCALE) .venv-triton .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
