# Every command sets up what it needs in .venv first. PYTHON=... chooses the interpreter.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
LAUNCH := $(BIN)/accelerate launch --quiet --config_file accelerate_config.yaml
DEMO := runs/demo_diffusion_digits
# of the report's title page and file names
NAME ?= Full Name
ID ?= 00000

.PHONY: demo test lint benchmark report notebooks address space clean

demo: .venv/.runtime  ## train on real handwritten digits, save, load in a new process, draw what was asked for
	$(LAUNCH) scripts/train_diffusion.py --config configs/demo/diffusion_digits.yaml --resume latest
	$(BIN)/python scripts/generate.py $(DEMO)/pipeline --output $(DEMO)/generated --num_images_per_class 12 --real digits --overwrite
	@echo
	@echo "samples while training  $(DEMO)/samples"
	@echo "the trained pipeline    $(DEMO)/pipeline"
	@echo "the labelled grid       $(DEMO)/generated/grid.png"

test: .venv/.dev lint  ## all tests; no network beyond the package index
	$(BIN)/python -m pytest

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

benchmark: .venv/.runtime  ## the training loops against the bare steps; DATA=folder for a local copy of CIFAR-10
	$(LAUNCH) benchmarks/training.py --config configs/diffusion_cifar10_cpu.yaml $(if $(DATA),--data.path $(DATA))
	$(LAUNCH) benchmarks/training_gan.py --config configs/gan_cifar10.yaml --generator_init null $(if $(DATA),--data.path $(DATA))

report: .venv/.report  ## the report in Persian and English, into runs/report; NAME="Full Name" ID=12345
	$(BIN)/python scripts/project/build_report.py --name "$(NAME)" --id "$(ID)" --output runs/report --overwrite

notebooks: .venv/.notebooks  ## execute all notebooks in place, and write their Persian editions
	$(BIN)/python scripts/project/run_notebooks.py
	$(BIN)/python scripts/project/translate_notebooks.py

address: .venv/.runtime  ## write a fork's address everywhere; URL=https://github.com/OWNER/REPO
	$(BIN)/python scripts/project/set_address.py "$(URL)"

space: .venv/.space  ## a page to play with the trained models; TRIPTYCH_MODELS=folder for others than ours
	$(BIN)/python space/app.py

.venv/.runtime: requirements.txt pyproject.toml setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

.venv/.dev: .venv/.runtime
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

.venv/.report: .venv/.runtime
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[report]'
	touch $@

.venv/.notebooks: .venv/.runtime
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[notebooks]'
	touch $@

.venv/.space: .venv/.runtime
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[space]'
	touch $@

clean:  ## remove the environment and caches; runs/ is yours and stays
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .import_linter_cache
