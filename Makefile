# `make demo` and `make test` are all that a newcomer needs; they create .venv themselves.
# Needs: make and Python 3.11+ (name another one with PYTHON=...).

VENV ?= .venv
OUT ?= out
# Test processes at once: each OpenCL runtime uses every core anyway.
JOBS ?= 2
# Options of `make bench`, such as BENCH="--peers torch --runtime intel"; its --help lists them.
BENCH ?=
BIN := $(VENV)/bin

# The first Python that is new enough.
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11 python
NEW_ENOUGH := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
ifndef PYTHON
PYTHON := $(firstword $(foreach p,$(CANDIDATES),$(shell $(p) -c '$(NEW_ENOUGH)' 2>/dev/null && echo $(p))))
endif

# What each command installs. A stamp is older than pyproject.toml only after that file changed, so
# a second call installs nothing.
DEMO_STAMP := $(VENV)/.installed-demo
TEST_STAMP := $(VENV)/.installed-test

.DEFAULT_GOAL := help
.PHONY: help demo test check pytest format docs bench bench-coexec clean
.PHONY: study-phone-gpu-training study-when-to-coexecute study-training-memory study-heterogeneous-inference
.DELETE_ON_ERROR:

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 32

demo: $(DEMO_STAMP)  ## train a CNN from an ONNX file on handwritten digits, then check it with ONNX Runtime
	@mkdir -p $(OUT)
	@$(call say,data: scikit-learn's handwritten digits)
	$(BIN)/python examples/prepare_digits.py --out $(OUT)
	@$(call say,model: an untrained CNN as an ONNX file)
	$(BIN)/coexec zoo digits_cnn --out $(OUT)/untrained.onnx
	@$(call say,training on the OpenCL device)
	$(BIN)/coexec train $(OUT)/untrained.onnx --data $(OUT)/train.npz \
		--validation $(OUT)/validation.npz --optimizer adam --learning-rate 0.001 \
		--batch-size 32 --epochs 15 --out $(OUT)/digits.onnx
	@$(call say,the trained file in ONNX Runtime)
	$(BIN)/python examples/compare_with_onnxruntime.py $(OUT)/digits.onnx $(OUT)/validation.npz \
		--least-accuracy 0.98

test: $(TEST_STAMP) check pytest  ## everything: formatter, linter, type checker, import contracts, tests
	@$(call say,all checks and tests passed)

check: $(TEST_STAMP)  ## formatter, linter, type checker, import contracts
	@$(call say,formatter: ruff format)
	$(BIN)/ruff format --check .
	@$(call say,linter: ruff check)
	$(BIN)/ruff check .
	@$(call say,type checker: mypy --strict)
	$(BIN)/mypy
	@$(call say,import contracts: import-linter)
	$(BIN)/lint-imports --no-logo

# After the checks, also under make -j.
pytest: $(TEST_STAMP) | check
	@$(call say,tests: pytest)
	# One BLAS thread a process: threads of NumPy that wait for each other slow the references 4 times.
	OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist worksteal

format: $(TEST_STAMP)  ## rewrite the code as the formatter and the linter want it
	$(BIN)/ruff check --fix-only --exit-zero .
	$(BIN)/ruff format .

docs: $(TEST_STAMP)  ## regenerate the pages that are made from code
	$(BIN)/python -m coexec.report.operators docs/operators.md

bench: $(TEST_STAMP)  ## measure coexec beside its peers, what fits into 15 minutes; then docs/benchmarks.md
	$(BIN)/python -m bench all $(BENCH)
	$(BIN)/python -m bench.page

bench-coexec: $(TEST_STAMP)  ## two processors of one core each beside each of them alone, 10 minutes
	$(BIN)/python -m bench coexec --peers "" $(BENCH)
	$(BIN)/python -m bench.page

study-phone-gpu-training: $(TEST_STAMP)  ## measure the ladder from a stock engine to coexec's defaults
	$(BIN)/python studies/phone_gpu_training/run.py

study-when-to-coexecute: $(TEST_STAMP)  ## measure for which operators dividing pays, by what waiting costs
	$(BIN)/python studies/when_to_coexecute/run.py --runtime intel
	$(BIN)/python studies/when_to_coexecute/run.py --runtime pocl

study-heterogeneous-inference: $(TEST_STAMP)  ## simulate strategies on ten phones, a quarter of an hour; goes on where it ended
	$(BIN)/coexec study run studies/heterogeneous_inference --workers $(JOBS) --out $(OUT)/heterogeneous_inference
	$(BIN)/python studies/heterogeneous_inference/report.py $(OUT)/heterogeneous_inference

study-training-memory: $(TEST_STAMP)  ## measure step time against memory budgets
	$(BIN)/python studies/training_memory/run.py

clean:  ## remove the virtual environment, caches and outputs
	rm -rf $(VENV) $(OUT) build dist coexec.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(DEMO_STAMP): pyproject.toml | $(BIN)/python
	@$(call say,installing coexec and its OpenCL runtime into $(VENV))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo,ort]'
	@touch $@

$(TEST_STAMP): pyproject.toml | $(BIN)/python
	@$(call say,installing coexec and its OpenCL runtimes and the test tools into $(VENV))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,intel]'
	@touch $@ $(DEMO_STAMP)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11+ with venv and pip found" \
		"(Debian, Ubuntu: apt install python3-venv), or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(call say,creating $(VENV) with $(PYTHON))
	$(PYTHON) -m venv $(VENV)

say = printf '\n== %s\n' "$(1)"
