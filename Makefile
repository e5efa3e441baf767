# make help: what there is, and how long it takes. All work in .venv and build/.

PYTHON ?= python3
TORCH ?= 2.13.0
# Of the tests: processes, and what pytest is told besides.
WORKERS ?= logical
PYTEST_FLAGS ?=
COVERAGE := --cov --cov-report=term

VENV := .venv
CHECKED := build/checked-env
ADDRESS := build/address-env
RACES := build/thread-env
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
EDITABLE := --no-build-isolation --editable

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: help demo test quick check lint lint-imports test-release test-checked sanitize \
        sanitize-address sanitize-thread hostile audit sbom dist smoke clean distclean
.DELETE_ON_ERROR:

# Times on two cores, of a second call: the first one also installs and builds, 2 to 4 minutes.
help:
	@echo "make demo       10 s    install and watch the bundled model write, over gRPC (PROMPT=...)"
	@echo "make quick       2 min  the tests without slow ones, the last failures first"
	@echo "make test        5 min  install test and training extras, run all tests"
	@echo "make check      14 min  lint, tests on the checked build and, with coverage, on the release one"
	@echo "make lint        1 min  the static part of check"
	@echo "make sanitize   15 min  tests of the kernels under address, undefined and thread sanitizers"
	@echo "make hostile    10 min  hostile inputs at every surface (MINUTES=n SURFACE=... SHORT=1)"
	@echo "make audit       1 min  known faults of installed packages, where an index serves them"
	@echo "make sbom        1 s    write what the wheel needs, as CycloneDX, to dist/"
	@echo "make dist        1 min  build the wheel and the sdist into dist/"
	@echo "make smoke       4 min  dist; install both outside the checkout and run them"
	@echo "make clean       1 s    remove builds and caches; make distclean: .venv as well"

demo: $(VENV)/.base
	@$(VENV)/bin/python tools/demo.py $(if $(PROMPT),"$(PROMPT)")

test: test-release

check: PYTEST_FLAGS := $(COVERAGE)
check: lint test-checked test-release

# --- environments -------------------------------------------------------------------------------

$(VENV)/.created:
	@sh tools/preflight.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	@touch $@

$(VENV)/.base: $(VENV)/.created pyproject.toml
	@sh tools/preflight.sh $(PYTHON)
	@echo "installing spiketrain into $(VENV) (the first time takes a minute)"
	@$(VENV)/bin/python tools/build_requires.py > $(VENV)/build-requires.txt
	$(PIP) --requirement $(VENV)/build-requires.txt
	$(PIP) $(EDITABLE) . -Cbuild-dir=build/release
	@touch $@

# torch first, as a CPU build: left to itself pip may choose one with several GB of CUDA.
$(VENV)/.test: $(VENV)/.base
	@$(VENV)/bin/python tools/install_torch.py $(TORCH)
	$(PIP) $(EDITABLE) '.[train,test]' -Cbuild-dir=build/release
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PIP) $(EDITABLE) '.[train,test,dev]' -Cbuild-dir=build/release
	@touch $@

# A further build has an environment of its own, which sees the packages of the first, but not its
# editable install: lines of a .pth file are not followed from another one.
build/%-env/.test: $(VENV)/.test
	$(PYTHON) -m venv --without-pip $(@D)
	@$(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	    > "$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/packages.pth"
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --ignore-installed --no-deps \
	    $(EDITABLE) . -Cbuild-dir=build/$* $(SETUP:%=-Csetup-args=%)
	@touch $@

$(CHECKED)/.test: SETUP := -Dchecked=true
$(ADDRESS)/.test: SETUP := -Dsanitizer=address -Doptimization=1
$(RACES)/.test: SETUP := -Dsanitizer=thread -Doptimization=1

# --- checks -------------------------------------------------------------------------------------

# Workers take tests as they go; tests of one xdist_group stay together.
PARALLEL := --numprocesses $(WORKERS) --maxprocesses 8 --dist loadgroup

test-release: $(VENV)/.test
	$(VENV)/bin/python -m pytest $(PARALLEL) $(PYTEST_FLAGS)

quick: $(VENV)/.test
	$(VENV)/bin/python -m pytest $(PARALLEL) -m "not slow" --failed-first --durations 5 $(PYTEST_FLAGS)

test-checked: $(CHECKED)/.test
	PATH="$(CURDIR)/$(CHECKED)/bin:$$PATH" $(CHECKED)/bin/python -m pytest $(PARALLEL)

# A report goes to the process's own stderr; everything takes several times as long.
WATCHED := --capture=sys --timeout=0

sanitize: sanitize-address sanitize-thread

# Built before the sanitizer is loaded into every process. Python itself leaks by design; modules in
# C++ throw, which the sanitizer has to find in their library.
sanitize-address: $(ADDRESS)/.test
	ninja -C build/address
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libstdc++.so.6)" \
	    ASAN_OPTIONS=detect_leaks=0 \
	    UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
	    $(ADDRESS)/bin/python -m pytest $(WATCHED) tests/runtime

sanitize-thread: $(RACES)/.test
	ninja -C build/thread
	LD_PRELOAD="$$($(CC) -print-file-name=libtsan.so)" TSAN_OPTIONS=halt_on_error=1 \
	    $(RACES)/bin/python -m pytest $(WATCHED) -k "thread or share" tests/runtime

MINUTES ?= 10
SURFACE ?=
SHORT ?=

# What it finds is written to tests/hostile/found, and replayed by the tests.
hostile: $(VENV)/.test
	$(VENV)/bin/python tests/hostile $(if $(SHORT),--short,--minutes $(MINUTES)) \
	    $(if $(SURFACE),--surface $(SURFACE))

# An index without a list of known faults, or no network, is said and is no failure.
audit: $(VENV)/.dev
	$(VENV)/bin/python tools/audit.py

lint: $(VENV)/.dev
	ruff check .
	ruff format --check .
	cython-lint runtime lm
	clang-format --dry-run -Werror $$(git ls-files '*.c' '*.h')
	mypy
	@$(MAKE) --no-print-directory lint-imports

# The import hook of an editable install hides the sources from import-linter: it steps back.
lint-imports: $(VENV)/.dev
	MESONPY_EDITABLE_SKIP="$(CURDIR)/build/release" lint-imports --no-logo

# --- distribution -------------------------------------------------------------------------------

dist: $(VENV)/.test
	rm -rf dist
	$(VENV)/bin/python -m build --no-isolation --skip-dependency-check --outdir dist .

sbom: $(VENV)/.base
	@mkdir -p dist
	$(VENV)/bin/python tools/sbom.py > dist/spiketrain.cdx.json

smoke: dist
	$(VENV)/bin/python tools/smoke.py dist

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -f .coverage .coverage.* $(VENV)/.base $(VENV)/.test $(VENV)/.dev
	find . -name __pycache__ -not -path './.venv*' -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
