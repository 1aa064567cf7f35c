# The two commands are `make demo` and `make test`; each sets up everything it needs.
#
#   make demo          train, convert, run and compare on the embedded images; results in build/demo/
#   make test          all tests: C (release, sanitizers, 64-bit and 32-bit ARM under qemu) and Python
#   make bench         measure, and record the results in benchmarks/results/
#   make bench-end-to-end  of that whole networks, and peers beside them, alone
#   make end-to-end-models  the model files of that, which take long and may be made on a busy machine
#   make bench-kernels the same of single binary convolutions: times here, instructions and modelled cycles on aarch64
#   make zoo           convert all models of larq-zoo in three fidelities, compare every layer, record it
#   make random-models convert a thousand random Keras models, compare every layer, record it; interrupted, it goes on
#   make accuracy      train the recorded experiments (hours) and bring their record, tables and plots up to date;
#                      DATA=DIR is where CIFAR-10 is, see benchmarks/accuracy/README.md; interrupted, it goes on
#   make fuzz          the fuzz targets of the runtime, FUZZ_SECONDS (600) of CPU each; needs clang
#   make fuzz-ci       the same with fixed inputs, a minute of CPU each, in which only a change finds something new
#   make fuzz-record   make fuzz, and record executions, findings and coverage in benchmarks/results/fuzz.json
#   make lint          formatting, types, static analysis of the C code (gcc -fanalyzer, cppcheck)
#   make format        rewrite the sources in the project's format
#   make test-oldest   the Python tests with the oldest supported TensorFlow (2.15.1)
#   make schema        regenerate the Python code of the file format (needs flatc)
#   make clean         remove build/
#
# PYTHON=... chooses the interpreter (3.10 to 3.12), VENV=... the virtual environment.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

SUPPORTED = import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.10; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN = $(VENV)/bin
CONSTRAINTS ?= constraints.txt
EXTRAS ?= test,lint,zoo
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
RUNTIME_SOURCES = $(shell find runtime -name '*.[ch]' -o -name 'CMakeLists.txt' -o -name '*.cmake' -o -name '*.json')
C_SOURCES = $(shell find runtime -name '*.[ch]')
export PATH := $(abspath $(BIN)):$(PATH)
HAVE_aarch64 = command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64 >/dev/null
HAVE_armv7 = command -v arm-linux-gnueabihf-gcc >/dev/null && command -v qemu-arm >/dev/null
HAVE_fuzz = echo 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return !d && n; }' | \
	clang -fsanitize=fuzzer,address,undefined -x c -o /dev/null - 2>/dev/null
# A worker of the tests may take 8 GB of memory, most of it TensorFlow's.
WORKERS ?= $(shell awk -v jobs=$(JOBS) '/MemTotal/ { fit = int($$2 / 8e6); \
	print fit < 1 ? 1 : fit < jobs ? fit : jobs; found = 1 } END { if (!found) print 1 }' /proc/meminfo 2>/dev/null || echo 1)
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

.PHONY: demo test test-c test-aarch64 test-armv7 test-python test-oldest fuzz fuzz-ci fuzz-fixed fuzz-record bench \
	bench-end-to-end end-to-end-models bench-kernels accuracy zoo random-models lint format schema setup system system-fuzz clean

demo: setup system
	$(BIN)/larq-clip demo --output build/demo

test: setup system test-c test-aarch64 test-armv7 test-python

# ---- Setting up ------------------------------------------------------------------------------------------------

setup: $(VENV)/.installed

$(VENV)/.created: pyproject.toml $(CONSTRAINTS)
	@test -n "$(PYTHON)" || { echo "make: no Python 3.10 to 3.12 found; install one, or name it: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -c '$(SUPPORTED)' || { echo "make: $(PYTHON) is not Python 3.10 to 3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) scikit-build-core cmake ninja
	touch $@

# The editable install compiles the C runtime, so it is redone when a C source changes.
$(VENV)/.installed: $(VENV)/.created $(RUNTIME_SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) \
		--no-build-isolation -e '.[$(EXTRAS)]'
	touch $@

# Debian packages, installed where we may: $(1) tells whether they are needed no more, $(2) names them.
define install_packages
	@if $(1); then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			$(2) >/dev/null; \
	else \
		echo "make: not root on Debian, so these packages are not installed: $(2)"; \
		echo "make: what needs them is skipped"; \
	fi
endef

# Compilers and emulator for ARM, cppcheck, and flatc for the schema's test.
HAVE_system = $(HAVE_aarch64) && $(HAVE_armv7) && command -v flatc >/dev/null && command -v cppcheck >/dev/null
SYSTEM_PACKAGES = qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-arm-linux-gnueabihf \
	libc6-dev-armhf-cross cppcheck flatbuffers-compiler
system:
	$(call install_packages,$(HAVE_system),$(SYSTEM_PACKAGES))

# clang with libFuzzer, which the tests and the demo do without.
system-fuzz:
	$(call install_packages,$(HAVE_fuzz),clang libclang-rt-dev)

# ---- Testing ---------------------------------------------------------------------------------------------------

# One build and test run of the C side by a preset of runtime/CMakePresets.json, into build/runtime-PRESET.
define test_preset
	cd runtime && cmake --preset $(1) >/dev/null
	cmake --build build/runtime-$(1)
	ctest --test-dir build/runtime-$(1) --output-on-failure -j $(JOBS)
endef

test-c: setup
	$(call test_preset,release)
	$(call test_preset,sanitize)
	$(call test_preset,tsan)

test-aarch64 test-armv7: test-%: setup system
	@if $(HAVE_$*); then $(MAKE) --no-print-directory test-preset-$*; \
	elif [ -n "$${CI:-}" ]; then \
		echo "make: the cross compiler or the emulator for $* is missing, which CI does not accept" >&2; exit 1; \
	else \
		echo "make: SKIPPED the tests on $*: its cross compiler or qemu is missing"; \
	fi

test-preset-aarch64: setup
	$(call test_preset,aarch64)
	$(call test_preset,aarch64-sanitize)

test-preset-armv7: setup
	$(call test_preset,armv7)

test-python: setup
	$(PYTEST)

define build_fuzzers
	cd runtime && cmake --preset fuzz >/dev/null && cmake --build ../build/runtime-fuzz
	$(BIN)/python runtime/fuzz/make_corpus.py build/fuzz/seeds
endef

FUZZ_SECONDS ?= 600
fuzz fuzz-record: setup system-fuzz
	@$(HAVE_fuzz) || { echo "make: fuzzing needs clang with libFuzzer (Debian: clang, libclang-rt-dev, llvm)" >&2; exit 1; }
	$(build_fuzzers)
	$(if $(filter fuzz-record,$@),cd runtime && cmake --preset coverage >/dev/null && cmake --build ../build/runtime-coverage)
	$(BIN)/python runtime/fuzz/run_fuzzers.py --seconds $(FUZZ_SECONDS) --jobs $(JOBS) \
		$(if $(filter fuzz-record,$@),--record benchmarks/results/fuzz.json)

fuzz-ci: setup system-fuzz
	@if $(HAVE_fuzz); then $(MAKE) --no-print-directory fuzz-fixed; \
	elif [ -n "$${CI:-}" ]; then \
		echo "make: clang or its libFuzzer is missing, which CI does not accept" >&2; exit 1; \
	else \
		echo "make: SKIPPED the fuzz targets: clang or its libFuzzer is missing"; \
	fi

fuzz-fixed: setup
	$(build_fuzzers)
	$(BIN)/python runtime/fuzz/run_fuzzers.py --fixed --jobs $(JOBS)

test-oldest: system
	# larq-zoo wants a protobuf older than the oldest versions here: its tests are skipped.
	$(MAKE) VENV=.venv-oldest CONSTRAINTS=constraints-oldest.txt EXTRAS=test,lint PYTHON='$(OLDEST_PYTHON)' \
		test-aarch64 test-python

OLDEST_PYTHON = $(shell for p in python3.11 python3.10 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 11))' 2>/dev/null && echo $$p && break; done)

# ---- Measuring -------------------------------------------------------------------------------------------------

# End to end, MODELS="QuickNet vgg_11" chooses networks, ROUNDS is how often each engine runs, and FRESH=1 measures again
# what an earlier call has measured; on a machine that does nothing else. The files of the models need no such machine;
# REMAKE=.lcb makes larq_clip's again, after a change of the converter.
bench: test-c test-aarch64 bench-end-to-end
	$(BIN)/python benchmarks/runtime_size.py

bench-kernels: test-c test-aarch64
	command -v llvm-mca-19 >/dev/null || { echo "make: llvm-mca-19 is missing (Debian package llvm-19)" >&2; exit 1; }
	$(BIN)/python benchmarks/kernels.py

MODELS ?=
ROUNDS ?= 80
FRESH ?=
REMAKE ?=
REMAKE ?=
MEASURE = $(BIN)/python benchmarks/end_to_end/measure.py --peers build/peers $(if $(MODELS),--models $(MODELS))
end-to-end-models: setup build/peers/.installed
	$(MEASURE) --build-only $(if $(REMAKE),--remake $(REMAKE))

bench-end-to-end: end-to-end-models
	$(MEASURE) --rounds $(ROUNDS) $(if $(FRESH),--fresh)
	$(BIN)/python benchmarks/end_to_end/tables.py

build/peers/.installed: benchmarks/end_to_end/requirements.txt
	$(PYTHON) -m venv build/peers
	build/peers/bin/pip install --quiet --disable-pip-version-check -r $<
	build/peers/bin/pip install --quiet --disable-pip-version-check --no-deps larq-compute-engine==0.16.0
	touch $@

zoo: setup test-aarch64
	rm -f build/zoo.json
	LARQ_CLIP_ALL_ZOO=1 LARQ_CLIP_ZOO_RESULTS=$(abspath build/zoo.json) $(BIN)/python -m pytest \
		tests/converter/test_zoo_models.py tests/converter/test_zoo_plain.py
	mv build/zoo.json benchmarks/results/zoo.json
	$(BIN)/python benchmarks/zoo_table.py

random-models: setup
	$(BIN)/python benchmarks/random_models.py

EXPERIMENTS ?= $(basename $(notdir $(wildcard benchmarks/accuracy/configs/*_quarter.json)))
SEEDS ?= 1 2 3
accuracy: setup
	for experiment in $(EXPERIMENTS); do for seed in $(SEEDS); do \
		$(BIN)/python benchmarks/accuracy/train.py benchmarks/accuracy/configs/$$experiment.json --seed $$seed \
			$(if $(DATA),--data-dir '$(DATA)') --work build/accuracy; \
	done; done
	$(BIN)/python benchmarks/accuracy/record.py --work build/accuracy
	$(BIN)/python benchmarks/accuracy/accuracy_tables.py

# ---- Keeping tidy ----------------------------------------------------------------------------------------------

lint: setup system
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(C_SOURCES)
	cd runtime && cmake --preset analyze >/dev/null && cmake --build ../build/runtime-analyze
	@if command -v cppcheck >/dev/null; then \
		cppcheck --quiet --std=c11 --enable=warning,performance,portability --inconclusive --error-exitcode=1 \
			--suppressions-list=runtime/cppcheck.txt --project=build/runtime-analyze/compile_commands.json; \
	elif [ -n "$${CI:-}" ]; then echo "make: cppcheck is missing, which CI does not accept" >&2; exit 1; \
	else echo "make: SKIPPED cppcheck: it is missing"; fi

format: setup
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_SOURCES)

schema: setup
	flatc --python --gen-onefile -o converter/schema converter/schema/larq_clip.fbs

clean:
	rm -rf build
