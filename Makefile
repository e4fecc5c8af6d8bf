# Each target does its own set-up in a fresh clone. It needs Python 3.11 or newer, a C
# compiler and make; whatever else it uses goes into .venv and build, and nowhere else.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test debug-test asan-run asan-test fuzz fuzz-api soak soak-broker mutants bench asv asv-html gate peers lint build clean distclean FORCE

# release, debug (bounds checked), trace (for coverage; several times slower) or asan.
PENSTOCK_BUILD ?= release
export PENSTOCK_BUILD

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
# Two makes at once would compile into the same files.
LOCK := $(if $(shell command -v flock),flock $(VENV)/lock)

ROOMS := engine server client
SOURCES := setup.py pyproject.toml $(wildcard $(foreach room,$(ROOMS),\
  $(foreach kind,pyx pxi pxd h,$(room)/*.$(kind))))
# build/names holds one link for each file of client/; a file without one asks for a build.
LINKED := $(wildcard build/names/penstock/*)
UNLINKED := $(filter-out $(LINKED) %/__pycache__,\
  $(patsubst client/%,build/names/penstock/%,$(wildcard client/*)))
# setup.py notes the kind of the last build; another kind asks for a build as well.
OTHER_KIND := $(if $(filter $(PENSTOCK_BUILD),$(shell cat build/last 2>/dev/null)),,FORCE)

help: ## show this text
	@echo 'Penstock. In a fresh clone, with Python 3.11 or newer and a C compiler:'
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | \
	  while IFS='|' read -r name text; do printf '%-18s %s\n' "$$name" "$$text"; done
	@echo
	@echo '  LOG=path           the text log that make run ships; else the largest under /var/log'
	@echo '  ONCE=1             make run ends after the comparison instead of serving on'
	@echo '  ARGS="..."         further arguments for pytest, the benchmarks or make run'
	@echo '  PYTHON=python3.13  the Python that .venv is made with'
	@echo '  V=1                show what the compiler says'

# exec: a Ctrl-C reaches the command itself, which drains and says how it ended.
run: build ## ship a real log file through a durable queue and compare; LOG=path, ONCE=1
	@exec $(VENV)/bin/penstock ship $${LOG:+--log "$$LOG"} $(if $(filter-out 0 no,$(ONCE)),--once) $(ARGS)

test: build $(VENV)/test $(VENV)/java $(VENV)/cmq ## run the tests
	@exec $(PY) -m pytest -q $(ARGS)

debug-test: ## run the tests against a build that checks its bounds
	@exec $(MAKE) --no-print-directory PENSTOCK_BUILD=debug test

# Python itself keeps much until its end, so leaks are not looked for; its own pools are turned off, so that each
# object has a fence of its own.
ASAN_TESTS := $(sort $(wildcard tests/unit/test_engine_*.py tests/unit/test_server_*.py \
  tests/unit/test_http_*.py tests/unit/test_broker_*.py tests/fuzz/test_*.py)) tests/crash/test_flips.py
ifeq ($(PENSTOCK_BUILD),asan)
asan-run: build $(VENV)/test
	@exec env PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:allocator_may_return_null=1 \
	  UBSAN_OPTIONS=print_stacktrace=1 \
	  LD_PRELOAD="$$($(or $(CC),gcc) -print-file-name=libasan.so) $$($(or $(CC),gcc) -print-file-name=libubsan.so)" \
	  $(PY) -m pytest -q $(or $(ARGS),$(ASAN_TESTS))
endif

fuzz: build $(VENV)/test ## feed every parser what is nearly right; FUZZ=600 seconds for each test
	@exec $(PY) -m pytest -q tests/fuzz --fuzz $(or $(FUZZ),60) $(ARGS)

# It brings much with it, plugins of pytest too: an environment of its own.
build/api/made: $(VENV)/made
	@echo '· installing schemathesis'
	@$(PY) -m venv build/api
	@build/api/bin/python -m pip install --quiet --disable-pip-version-check 'schemathesis>=4'
	@touch $@

fuzz-api: build build/api/made ## let schemathesis ask a server what its OpenAPI document allows
	@exec $(PY) tests/fuzz/api.py build/api/bin/schemathesis $(ARGS)

asan-test: ## run the tests of C code with addresses and undefined behaviour checked
	@exec $(MAKE) --no-print-directory PENSTOCK_BUILD=asan asan-run

soak: build $(VENV)/test ## kill it thousands of times under load, and hold it against its models at length
	@exec $(PY) -m pytest -q tests/crash tests/property --soak $(ARGS)

soak-broker: build $(VENV)/test ## let the broker and its model walk STEPS steps (1000000) in JOBS processes (2)
	@exec $(PY) tests/property/walk.py --steps $(or $(STEPS),1000000) --jobs $(or $(JOBS),2) $(ARGS)

mutants: build $(VENV)/test ## break each rule of safety and see a test fail
	@exec $(PY) tests/mutants/run.py $(ARGS)

bench: build ## measure beside the peers that this machine has
	@exec $(PY) benchmarks/compare.py $(ARGS)

# Without COMMITS and BASE the work tree is measured as it is built; with COMMITS (a range of git) asv builds
# each of them into a virtualenv of its own, below .asv; with BASE that commit and this one, in turns.
asv: $(if $(COMMITS)$(BASE),,build) $(VENV)/bench ## run the benchmark suite; COMMITS=main~5..main, BASE=main~1, DATA=folder on a disk, ARGS="--bench Append"
	@$(VENV)/bin/asv machine --yes >/dev/null
	@exec $(if $(DATA),env PENSTOCK_BENCH_DATA="$(abspath $(DATA))") $(VENV)/bin/asv $(if $(BASE), \
	  continuous --interleave-rounds --show-stderr "$(BASE)" HEAD,run --show-stderr $(if $(COMMITS),"$(COMMITS)", \
	  --quick --python=same --set-commit-hash "$$(git rev-parse HEAD)")) $(ARGS)

# With ARGS only what they say is measured; without, all but the backlog, and the report is made anew.
peers: build $(VENV)/peers ## get the peers from their registries and measure ours beside them
	@$(PY) benchmarks/peers/install.py
	@$(PY) benchmarks/peers/run.py $(ARGS)
	@$(if $(ARGS),:,$(PY) benchmarks/peers/embedded.py)
	@$(if $(ARGS),:,$(PY) benchmarks/peers/report.py)

gate: build $(VENV)/base ## count what each call costs in BASE (main unless said) and in this tree; fail if it grew
	@exec $(PY) benchmarks/gate/gate.py --base $(or $(BASE),main) $(ARGS)

asv-html: $(VENV)/bench ## make pages of what asv has measured: .asv/html/index.html
	@$(VENV)/bin/asv publish $(ARGS)
	@exec $(PY) benchmarks/asv_pages.py .asv/html

lint: build $(VENV)/test ## check the types
	@exec $(VENV)/bin/mypy $(ARGS)

build: build/built ## compile the extensions in place

clean: ## remove what was compiled
	@rm -rf build .mypy_cache .pytest_cache .hypothesis .benchmarks .coverage
	@rm -f $(foreach room,$(ROOMS),$(room)/*.so $(patsubst %.pyx,%.c,$(wildcard $(room)/*.pyx)))
	@find $(ROOMS) tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove .venv as well
	@rm -rf $(VENV) .asv

# What pyproject.toml demands, for the extras and groups that are named.
define WANTED
import sys, tomllib
with open("pyproject.toml", "rb") as file:
    told = tomllib.load(file)
wanted = [] if len(sys.argv) > 1 else told["build-system"]["requires"] + told["project"]["dependencies"]
for extra in sys.argv[1:]:
    wanted += (told["project"]["optional-dependencies"] | told["dependency-groups"])[extra]
print(*wanted, sep="\n")
endef
export WANTED

define COMMAND
import sys

from penstock.server.cli import main

sys.exit(main())
endef
export COMMAND

# The stamps of .venv: made, base, test, bench, peers. Each is touched when its step is complete, so that
# a set-up that was interrupted is taken up again where it stopped.
$(VENV)/made:
	@set -e; chosen=; \
	for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python); do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	    2>/dev/null; then chosen=$$python; break; fi; \
	done; \
	if [ -z "$$chosen" ]; then \
	  echo 'No Python 3.11 or newer with its venv module was found; name one: make PYTHON=...' >&2; \
	  exit 1; fi; \
	echo "· making $(VENV) with $$("$$chosen" -V)"; \
	"$$chosen" -m venv $(VENV)
	@touch $@

$(VENV)/base: $(VENV)/made pyproject.toml
	@echo '· installing what the build and the server need'
	@printf '%s\n' "$$WANTED" | $(PY) - >$(VENV)/base.txt
	@printf '%s\n' "$$WANTED" | $(PY) - cli cron >>$(VENV)/base.txt
	@$(PIP) -r $(VENV)/base.txt
	@printf '%s\n' "$$WANTED" | $(PY) - fast >$(VENV)/fast.txt
	@$(PIP) -r $(VENV)/fast.txt 2>/dev/null || echo '· no uvloop here: the loop of asyncio will do'
	@touch $@

$(VENV)/test: $(VENV)/base
	@echo '· installing what the tests need'
	@printf '%s\n' "$$WANTED" | $(PY) - test >$(VENV)/test.txt
	@$(PIP) -r $(VENV)/test.txt
	@touch $@

# Real clients that are not Python's: their tests are skipped where this could not be done, unless
# PENSTOCK_INTEROP is 1.
JAVA := $(VENV)/interop/cmq-tcp
$(VENV)/java: tests/interop/cmq_tcp/Driver.java tests/interop/cmq_tcp/pom.xml | $(VENV)/made
	@mkdir -p $(JAVA)
	@if command -v mvn >/dev/null && command -v javac >/dev/null; then \
	  echo '· fetching a Java client and compiling what drives it'; \
	  mvn -q -B -f tests/interop/cmq_tcp/pom.xml -Dmaven.repo.local=$(CURDIR)/$(VENV)/m2 \
	    dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(CURDIR)/$(JAVA) \
	  && javac -Xlint:-options -cp '$(JAVA)/*' -d $(JAVA) $< && touch $@ \
	  || echo '· that failed: the tests of the Java client will be skipped'; \
	else echo '· no Java and Maven here: the tests of the Java client will be skipped'; fi

# The clients of CMQ over HTTP, each in a folder of its own: our tests never import them.
CMQ := $(VENV)/interop
$(VENV)/cmq: $(wildcard tests/interop/cmq_http/*) | $(VENV)/made
	@echo '· fetching the clients of CMQ over HTTP'
	@mkdir -p $(CMQ)/cmq-python $(CMQ)/cmq-http $(CMQ)/cmq-node
	@$(PIP) --target $(CMQ)/cmq-python --upgrade -r tests/interop/cmq_http/requirements.txt \
	  >$(CMQ)/python.log 2>&1 || echo '· that failed: the tests of the Python clients will be skipped'
	@if command -v mvn >/dev/null && command -v javac >/dev/null; then \
	  mvn -q -B -f tests/interop/cmq_http/pom.xml -Dmaven.repo.local=$(CURDIR)/$(VENV)/m2 \
	    dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=$(CURDIR)/$(CMQ)/cmq-http \
	  && javac -encoding UTF-8 -Xlint:-options -cp '$(CMQ)/cmq-http/*' -d $(CMQ)/cmq-http \
	    tests/interop/cmq_http/Http.java \
	  || echo '· that failed: the tests of the Java client will be skipped'; fi
	@if command -v npm >/dev/null; then \
	  cp tests/interop/cmq_http/package.json $(CMQ)/cmq-node \
	  && (cd $(CMQ)/cmq-node && npm install --silent --no-fund --no-audit >../node.log 2>&1) \
	  || echo '· that failed: the tests of the Node client will be skipped'; fi
	@touch $@

$(VENV)/bench: $(VENV)/base
	@echo '· installing what the benchmarks need'
	@printf '%s\n' "$$WANTED" | $(PY) - bench >$(VENV)/bench.txt
	@$(PIP) -r $(VENV)/bench.txt
	@touch $@

$(VENV)/peers: $(VENV)/base
	@echo '· installing the embedded peers'
	@printf '%s\n' "$$WANTED" | $(PY) - peers >$(VENV)/peers.txt
	@while read -r one; do $(PIP) "$$one" || echo "· $$one cannot be had"; done <$(VENV)/peers.txt
	@touch $@

# A path file and a script of four lines stand for an editable install: that one would compile
# everything a second time, and type checkers do not see through its import hook.
$(VENV)/command: $(VENV)/made
	@echo "$(CURDIR)/build/names" >"$$($(PY) -c \
	  'import sysconfig; print(sysconfig.get_path("purelib"))')/penstock.pth"
	@printf '#!%s\n%s\n' "$(CURDIR)/$(PY)" "$$COMMAND" >$(VENV)/bin/penstock
	@chmod +x $(VENV)/bin/penstock
	@touch $@

build/built: $(SOURCES) $(UNLINKED) $(OTHER_KIND) | $(VENV)/base $(VENV)/command
	@mkdir -p build
	@echo '· compiling ($(PENSTOCK_BUILD)); the first time takes a minute or two'
	@$(LOCK) $(PY) setup.py -q build_ext --inplace -j2 egg_info --egg-base build/names \
	  >build/log 2>&1 || { cat build/log >&2; \
	  echo 'The build failed. It needs a C compiler and the headers of Python (Python.h).' >&2; exit 1; }
	@$(if $(V),cat build/log,:)
	@touch $@

# A link that is missing is made by the build.
$(UNLINKED): ;

FORCE:
