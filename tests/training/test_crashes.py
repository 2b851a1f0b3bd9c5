"""A run is killed at each of its writes and in the middle of them; what is left is the old or the new state, whole."""

import itertools
import os
import resource
import shutil
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch

from dreamdojo.training.checkpoint import load_model, read_about
from dreamdojo.training.fit import fit, is_finished
from dreamdojo.training.optimizer import make_optimizer
from dreamdojo.training.resume import saved_step
from tests.tiny import CPU
from tests.training.test_fit import Line, batches, config, rows_of, step_of

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
SHORT, LONG = config(steps=2, save_every=3, log_every=1), config(steps=4, save_every=3, log_every=1)


def train(folder, settings):
    model = Line()
    about = {"steps": settings.steps}
    fit(model, step_of(model), batches, config=settings, folder=folder, compute=CPU, about=about)


def apart(*work):
    """Run in a process of its own; the number of the signal that killed it, or 0."""
    if (child := os.fork()) == 0:
        try:
            for each in work:
                each()
            os._exit(0)
        finally:  # an error: let the parent see that it was neither a kill nor the end
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code <= 0, "the child failed"
    return -code


def kill_before_change(number):
    """Kill this process where it is about to change the disk for the `number`-th time."""
    changes = itertools.count(1)

    def watch(event, arguments):
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (writes or event in CHANGES) and next(changes) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def kill_at_byte(number):
    """Kill this process where it writes beyond the `number`-th byte of any file, whatever library it does it in."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, resource.RLIM_INFINITY))


@dataclass(frozen=True)
class Left:
    """What a folder holds for whoever opens it: each None where there is none, an error where it is broken."""

    model: bytes | None
    about: dict | None
    step: int | None


def left(folder):
    if not (folder / "config.json").exists():
        return Left(None, None, saved_step(folder))
    load_model(folder, Line)
    return Left((folder / "model.safetensors").read_bytes(), read_about(folder), saved_step(folder))


def kill_everywhere(root):
    """Kill a run of two steps that goes on to four, at each place; what was found, as plain values."""
    torch.set_num_threads(1)
    make_optimizer(Line(), "adamw", learning_rate=1.0, weight_decay=0.0, betas=(0.9, 0.99)).step()  # imports, once
    before, reference = root / "before", root / "reference"
    assert apart(lambda: train(before, SHORT)) == 0
    shutil.copytree(before, reference)
    assert apart(lambda: train(reference, LONG)) == 0
    old, new = left(before), left(reference)
    assert old.model != new.model and (old.step, new.step) == (2, 4)

    # the middle of every file, and every change to the disk until there are no more
    sizes = sorted({path.stat().st_size - 1 for path in reference.rglob("*") if path.is_file()})
    found = [trial(root / "trial", kill_at_byte, size, (before, old, new)) for size in (0, 40, *sizes)]
    for number in itertools.count(1):
        found.append(trial(root / "trial", kill_before_change, number, (before, old, new)))
        if found[-1]["signal"] == 0:
            return found


def trial(folder, arm, number, known):
    """Kill once, look, run again, compare."""
    before, old, new = known
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(before, folder)
    by = apart(lambda: arm(number), lambda: train(folder, LONG))
    there = left(folder)
    whole = (there.model, there.about) in [(old.model, old.about), (new.model, new.about), (None, None)]
    honest = is_finished(folder, LONG) == ((there.model, there.step) == (new.model, 4))
    assert apart(lambda: train(folder, LONG)) == 0
    again = left(folder) == new and rows_of(folder) == rows_of(before.parent / "reference")
    return {
        "where": f"{arm.__name__} {number}",
        "signal": by,
        "whole": whole,
        "step": there.step,
        "honest": honest,
        "again": again,
    }


def test_a_kill_at_any_write_leaves_the_old_or_the_new_state_and_the_run_goes_on(tmp_path):
    # forks want a process without threads
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as clean:
        found = clean.submit(kill_everywhere, tmp_path).result()
    assert [one for one in found if not (one["whole"] and one["honest"] and one["again"])] == []
    assert {one["step"] for one in found} == {2, 3, 4}
    killed = [one["signal"] for one in found]
    assert killed.count(signal.SIGKILL) > 20 and killed.count(signal.SIGXFSZ) > 4 and killed[-1] == 0
