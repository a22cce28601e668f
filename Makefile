# The words people and CI both say.  `make` alone lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
READY   = $(VENV)/.ready

.PHONY: help install serve test test-clients sanitize check bench clean
help:           ## list these words
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/'

install: $(READY)   ## make .venv with the command gptoss in it
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $(READY)

serve: $(READY)     ## start the server on 127.0.0.1:8000, with the bundled demo model unless MODEL=DIR is given
	$(BIN)/gptoss serve $(if $(MODEL),--model $(MODEL)) $(ARGS)

test: $(READY)      ## run the tests
	$(BIN)/python -m pytest $(ARGS)

CLIENTS     = .venv-clients
RUN_CLIENTS = TEST_CLIENTS=all SERVER_PYTHON=$(BIN)/python PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
CLIENT_TEST = bin/python -m pytest -p pytest_timeout --confcutdir=tests/clients -ra $(ARGS)
test-clients: $(READY) $(CLIENTS)/sdks/.ready $(CLIENTS)/tools/.ready tests/clients/node/node_modules  ## run other people's clients against the demo model
	$(RUN_CLIENTS) $(CLIENTS)/sdks/$(CLIENT_TEST) -p pytest_asyncio.plugin -o asyncio_mode=auto \
	    -p pytest_benchmark.plugin -p pytest_recording.plugin tests/clients/sdks
	$(RUN_CLIENTS) $(CLIENTS)/tools/$(CLIENT_TEST) tests/clients/tools

$(CLIENTS)/%/.ready: tests/clients/%.txt
	$(PYTHON) -m venv $(CLIENTS)/$*
	$(CLIENTS)/$*/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@
tests/clients/node/node_modules: tests/clients/node/package.json
	npm install --prefix tests/clients/node --no-audit --no-fund --silent
	@touch $@

sanitize: $(READY)  ## run the CPU kernels' tests with the address and undefined-behaviour sanitizers
	$(BIN)/python model/kernels/cpu/toolchain.py build/sanitized.so -O1 -g \
	    -fsanitize=address,undefined -fno-sanitize-recover=all
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	    ASAN_OPTIONS=detect_leaks=0 GPTOSS_CPU_LIBRARY=build/sanitized.so \
	    $(BIN)/python -m pytest tests/kernels -k cpu $(ARGS)

check: $(READY)     ## formatter, linter, type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)    ## let the formatter and the linter mend what they can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:          ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
