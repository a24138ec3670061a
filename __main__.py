"""`contraux <job> …`: hands the rest of the line to that job's Hydra main, and says in one sentence what was wrong.

Only Hydra is imported here; what a job needs is imported when it runs, so that help and tab completion stay quick.
"""

import os
import sys
from contextlib import redirect_stdout
from functools import partial
from importlib import import_module
from io import StringIO
from typing import NamedTuple

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from . import __version__

CONFIGS = "pkg://contraux.configs"

# `objective=none` is an option of the command line alone: every file of configs/objective/ is a preset.
ConfigStore.instance().store(group="objective", name="none", node={"source": None, "module": None})


DEBUG = os.environ.get("HYDRA_FULL_ERROR") == "1"


class Job(NamedTuple):
    """What one word of the command line stands for: the module with its `main(cfg)`, and what it does."""

    module: str
    summary: str


JOBS = {
    "rl": Job(".agents.job", "train one Stable-Baselines3 agent, with a contrastive auxiliary or without"),
    "compare": Job(".agents.compare", "train the arms of an experiment over the same seeds, and say what differs"),
    "pretrain": Job(".core.pretraining.job", "train an encoder on its own: SimCLR, MoCo and relatives"),
    "diffusion": Job(".clgen.training_diffusion.job", "train a diffusion model, with a contrastive auxiliary or not"),
    "evaluate": Job(".core.evaluation.job", "say what a pretrained encoder is worth: probes, neighbours, few shots"),
    "gan": Job(".clgen.training_gan.job", "train a GAN, with a contrastive auxiliary on its discriminator or without"),
    "sample": Job(".clgen.sample", "write images of a trained GAN"),
    "compare-gan": Job(".clgen.training_gan.compare", "the same for GANs"),
    "compare-diffusion": Job(".clgen.training_diffusion.compare", "the same for diffusion"),
    "score": Job(".clgen.metrics.job", "say what generated images are worth, against real ones at the same N"),
    "extractor": Job(".clgen.metrics.train", "train the classifier that score compares images with"),
    "record": Job(".agents.record", "record frames of a Gymnasium environment, to pretrain on"),
    "probe": Job(".agents.probe.job", "say what features know of a game's memory, or of any state"),
}


def perform(name: str, cfg: DictConfig) -> None:
    """Run a job; a mistake of the user's ends the process, except in a sweep, which goes on with the others."""
    job = import_module(JOBS[name].module, __package__)
    try:
        job.main(cfg)
    except Exception as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        report(name, error)


def main() -> None:
    """Run the command line; exits with 2 and a sentence on a user's mistake, 130 when interrupted."""
    program, *words = sys.argv
    if words and words[0] in ("-sc", "--shell-completion"):
        complete(words)
    elif not words or words[0] in ("-h", "--help"):
        print(usage())
    elif words[0] == "--version":
        print(f"contraux {__version__}")
    elif words[0] not in JOBS:
        from .command_line import nearest

        fail(nearest("job", words[0], JOBS))
    else:
        sys.argv = [program, *words[1:]]
        run(words[0])


def usage() -> str:
    """Return what `contraux --help` prints."""
    jobs = "\n".join(f"  {name:<19}{job.summary}" for name, job in JOBS.items())
    return (
        "contraux <job> [group=option ...] [key=value ...]\n\n"
        f"Jobs\n{jobs}\n\n"
        "contraux <job> --help    groups, keys and examples of a job\n"
        "contraux --version       the version\n"
        'eval "$(contraux -sc install=bash)"   tab completion'
    )


def run(name: str) -> None:
    """Run a job on `sys.argv`, whose first word after the program was its name."""
    from .command_line import prepare

    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors, for us to explain, instead of printing them
    try:
        sys.argv[1:] = prepare(name, sys.argv[1:])
        (show_help if {"--help", "-h"} & set(sys.argv) else hydra_main)(name)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        report(name, error)


def show_help(name: str) -> None:
    """Print what Hydra says of a job, which lists every group of the package, without those of other jobs."""
    from .command_line import own_groups

    text = StringIO()
    try:
        with redirect_stdout(text):
            hydra_main(name)
    finally:  # Hydra exits
        print(own_groups(name, text.getvalue()), end="")


def report(name: str, error: Exception) -> None:
    """Exit with a sentence if the user can mend the error; raise it otherwise, or with HYDRA_FULL_ERROR=1."""
    from .command_line import explain

    text = None if DEBUG else explain(name, sys.argv[1:], error)
    if text is None:
        raise error
    fail(text)


def hydra_main(name: str) -> None:
    """Hand `sys.argv` to Hydra, with the job's config and task."""
    hydra.main(version_base="1.3", config_path=CONFIGS, config_name=name)(partial(perform, name))()


def complete(words: list[str]) -> None:
    """Answer `-sc install=…`, `-sc uninstall=…` and the shell's `-sc query=…`, which asks about `COMP_LINE`."""
    name = "rl"
    if any(word.startswith("query=") for word in words):
        line = os.environ.get("COMP_LINE", "").split(" ")
        typed = [word for word in line[1:] if word]
        if len(typed) < 2 and (not typed or line[-1]):
            start = typed[0] if typed else ""
            print(" ".join(word for word in (*JOBS, "--help", "--version") if word.startswith(start)))
            return
        if typed[0] not in JOBS:
            return
        complete_job(typed[0], typed[1:], new_word=not line[-1])
        return
    hydra_main(name)


def complete_job(name: str, words: list[str], *, new_word: bool) -> None:
    """Print how a job's line can go on, its groups by the names that the line has for them."""
    from .command_line import completions, to_complete

    os.environ["COMP_LINE"] = " ".join(["contraux", *to_complete(name, words, new_word), *([""] if new_word else [])])
    text = StringIO()
    with redirect_stdout(text):
        hydra_main(name)
    print("\n".join(completions(name, text.getvalue().split(), "" if new_word or not words else words[-1])))


def fail(text: str) -> None:
    """Print a sentence on standard error and exit with 2."""
    print(f"contraux: {text}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
