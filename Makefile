# make demo | make test | make check are the whole ritual; `make help` lists every target.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# rl-baselines3-zoo, which one test trains with, and what it imports: without their own requirements, some of which are
# older than what is pinned here.
ZOO    := alembic chardet colorlog dataproperty decorator imageio-ffmpeg mako mbstrdecoder moviepy optuna pathvalidate \
          proglog pytablewriter python-dotenv rl-zoo3 sb3-team-hf-integration shimmy sqlalchemy tabledata tcolorpy typepy wasabi

.DEFAULT_GOAL := help
.PHONY: help install demo test check bench few-shot pretrain-rl clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "the pinned set-up needs Python >= 3.11 (make PYTHON=...), found " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[jobs,contrib,atari,envs,minatar,timm,data,generative,bench,dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps $(ZOO)
	mkdir -p .dev && ln -sfn .. .dev/contraux
	touch $(STAMP)

install: $(STAMP) ## create .venv and install everything pinned in constraints.txt

demo: $(STAMP) ## the paired comparison on noisy CartPole, then CURL on Boxing from pixels
	$(BIN)/contraux compare experiment=noisy_cartpole compare.seeds=10
	$(BIN)/contraux rl experiment=boxing_curl
	@echo; echo "What the comparison found:"; grep '^\* ' runs/compare/noisy_cartpole/table.md
	@echo "table: runs/compare/noisy_cartpole/table.md   picture: runs/compare/noisy_cartpole/curves.png"

test: $(STAMP) ## the test suite, two files at a time where there are two cores
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

check: $(STAMP) ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## cost of the auxiliary beside the same algorithm without it
	$(BIN)/python benchmarks/overhead.py

few-shot: $(STAMP) ## pretrain on digits with 5 seeds, and compare with random encoders
	$(BIN)/contraux pretrain -m epochs=200 seed=0,1,2,3,4 hydra.sweep.dir=runs/few_shot 'hydra.sweep.subdir=seed_$${seed}'
	$(BIN)/contraux evaluate 'checkpoint=[runs/few_shot/seed_0,runs/few_shot/seed_1,runs/few_shot/seed_2,runs/few_shot/seed_3,runs/few_shot/seed_4]' folder=runs/few_shot/evaluation measures.fine_tune=null

PATH_TO_RL := runs/pretrain_rl
pretrain-rl: $(STAMP) ## record Boxing, pretrain an encoder on its frames, train agents on top of it: frozen, fine-tuned
	rm -rf $(PATH_TO_RL)
	$(BIN)/contraux record env=ALE/Boxing-v5 size=84 grayscale=true steps=8_000 folder=$(PATH_TO_RL)/frames
	$(BIN)/contraux pretrain data=frames data.path=$(PATH_TO_RL)/frames data.frame_stack=4 views=shift encoder=nature epochs=3 hydra.run.dir=$(PATH_TO_RL)/pretrained
	$(BIN)/contraux rl -m encoder.mode=frozen,finetune env=ALE/Boxing-v5 agent=ppo objective=none encoder.checkpoint=$(PATH_TO_RL)/pretrained steps=8_192 env.n_envs=4 agent.n_steps=128 agent.batch_size=128 agent.n_epochs=4 evaluation.every=null evaluation.episodes=1 hydra.sweep.dir=$(PATH_TO_RL) 'hydra.sweep.subdir=$${encoder.mode}'

clean: ## remove the environment and the runs
	rm -rf $(VENV) .dev build dist *.egg-info runs
