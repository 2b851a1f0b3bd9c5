# Two commands do everything on a fresh Debian machine with Python 3.11+, git, make and gcc:
#   make demo    set up and run the whole chain, then play
#   make test    set up and run the tests
# make gpu measures one GPU in the environment it finds: this folder's, else the Python at hand.

PYTHON ?= python3
VENV ?= .venv
# Index to take torch from: empty uses pip's own. Without a GPU, give the CPU index that PyTorch's install page names;
# the default build there is several gigabytes of CUDA.
TORCH_INDEX ?=
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
GL_PACKAGES := libegl1 libegl-mesa0 libgl1-mesa-dri libosmesa6

.PHONY: demo test check docs fmt weights gpu install install-dev browser clean

demo: install gl
	$(BIN)/dreamdojo demo $(ARGS)

test: install-dev gl
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

check: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(SITE)

# The documentation, as pages: open site/index.html; the search box needs a server (python -m http.server -d site).
docs: install-dev
	$(SITE)

fmt: install-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The models that ship: long, resumable; run it again after an interruption.
weights: install gl
	$(BIN)/dreamdojo train-foundation nano-foundation $(ARGS)

gpu: ; $(or $(wildcard $(BIN)/python),$(PYTHON)) -m benchmarks.gpu $(ARGS)

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V)."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory apt PACKAGES=python3-venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) -e '.[dojo,play,openvino]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[dojo,play,openvino,dev,docs]'
	$(PIP) --no-deps openpi-client==0.1.2  # judges our side of its protocol; it asks for an older numpy than it needs
	@touch $@

# Rendering needs EGL or OSMesa from the system.
.PHONY: gl
gl:
	@ldconfig -p | grep -qE 'libEGL\.so|libOSMesa\.so' || $(MAKE) --no-print-directory apt PACKAGES="$(GL_PACKAGES)"

# What comes from Debian is installed when root, and named when not.
.PHONY: apt
apt:
	@if [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -y -qq --no-install-recommends $(PACKAGES); \
	else echo "Missing system packages. Run: sudo apt-get install $(PACKAGES)"; exit 1; fi

# LeRobot's own loader, in an environment of its own: what we write must open there (its test is skipped without it).
REFEREES := .venv-referees
.PHONY: referees
referees:
	$(PYTHON) -m venv $(REFEREES)
	$(REFEREES)/bin/pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(REFEREES)/bin/pip install --quiet --no-deps lerobot==0.4.4 torchvision==0.28.0 torchcodec==0.13.0
	$(REFEREES)/bin/pip install --quiet -r tests/dataset/referee_requirements.txt
	@command -v ffmpeg >/dev/null || $(MAKE) --no-print-directory apt PACKAGES=ffmpeg

# For the browser tests, which are skipped where Chromium is absent.
browser:
	@$(MAKE) --no-print-directory apt PACKAGES=chromium

clean:
	rm -rf $(VENV) build *.egg-info
