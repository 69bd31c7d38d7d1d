# make demo   build the example for this machine and say where the report is
# make test   everything, as CI does
# make check  format, lint, types and the quick tests; what to run before a commit
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DIGITS := examples/digits

.PHONY: demo test check format bench docker-test triton-test serve-test clean

# the stamp is newer than what decides the environment: no reinstall while nothing changed
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11; give another one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/deploy build $(DIGITS)/digits.onnx --target cpu --int8 \
	  --data $(DIGITS)/calib.npz --eval-data $(DIGITS)/test.npz --max-drop 0.5 -o digits-cpu-int8

test: $(VENV)/installed
	$(BIN)/python -m pytest -W error

check: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -W error -m "not slow"

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/installed
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/calibration_memory.py
	$(BIN)/python benchmarks/real_models.py

# make docker-test  builds and runs both images; DOCKER_BASE, DOCKER_NETWORK as tests/docker says
DOCKER ?= docker
docker-test: $(VENV)/installed
	DOCKER=$(DOCKER) $(BIN)/python -m pytest -W error tests/docker

# make triton-test  the real Triton server; TRITON_SITE and OV_SITE as
#                   tests/deploy/packaging/tritonserver.py says
triton-test: $(VENV)/installed
	$(BIN)/python -m pytest -W error tests/deploy/packaging/test_tritonserver.py

# make serve-test  2,000 requests of the official Triton client to `deploy serve`, MobileNetV2 too
serve-test: $(VENV)/installed
	SERVE_LOAD=1 $(BIN)/python -m pytest -W error tests/deploy/serving

clean:
	rm -rf $(VENV) out digits-cpu-int8 digits-cpu-int8.work digits-cpu-int8.failed
