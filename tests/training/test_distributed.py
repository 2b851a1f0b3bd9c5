"""Two processes under torchrun (gloo) against one. They run once, in `two_processes.py`; a test looks at one trace."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from dreamdojo.errors import CheckpointError, ConfigError
from dreamdojo.training.activations import checkpoint_activations
from dreamdojo.training.checkpoint import load_model
from dreamdojo.training.distributed import Processes
from dreamdojo.training.fit import fit, is_finished
from dreamdojo.world_model.model import WorldModel
from tests.tiny import CPU, tiny_world_model
from tests.training.two_processes import FIT, train, train_small_addition, train_student


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders that two processes have written: two, parts (stopped and resumed), regrouped (stopped), diverged."""
    folder = tmp_path_factory.mktemp("runs")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "tests.training.two_processes", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 0, result.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    train(folder)
    return folder


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


def assert_same_weights(a, b, file="model.safetensors"):
    expected, found = (load_file(folder / file) for folder in (a, b))
    assert list(expected) == list(found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_two_processes_compute_what_one_does(runs, one):
    alone, together = rows(one), rows(runs / "two")
    assert len(alone) == len(together) == FIT.steps
    assert min(row["gradient_norm"] for row in alone) > FIT.gradient_clip
    for a, b in zip(alone, together, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
    assert_same_weights(one, runs / "two")
    assert load_model(runs / "two", WorldModel).config == load_model(one, WorldModel).config


def test_the_students_targets_are_of_the_averaged_weights_in_two_processes_too(runs, tmp_path):
    train_student(tmp_path)
    assert_same_weights(tmp_path, runs / "student")


def test_two_processes_train_a_lora_as_one_does(runs, tmp_path):
    pytest.importorskip("peft", reason='LoRA needs peft: pip install "dreamdojo[lora]"')
    train_small_addition(tmp_path)
    assert_same_weights(tmp_path, runs / "lora")
    assert_same_weights(tmp_path, runs / "lora", "lora.safetensors")


def test_a_signal_to_one_process_stops_both_after_the_same_step_and_they_resume(runs):
    assert (runs / "stopped-0").exists() and (runs / "stopped-1").exists()
    assert [path.name for path in (runs / "regrouped" / "state").iterdir()] == ["3"]
    assert not is_finished(runs / "regrouped", FIT) and is_finished(runs / "parts", FIT)
    assert rows(runs / "parts") == rows(runs / "two")  # which also computed its activations again
    whole, parts = (load_file(runs / name / "model.safetensors") for name in ("two", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_one_process_goes_on_with_the_state_of_two(runs, one):
    train(runs / "regrouped")
    assert not (runs / "regrouped" / "state").exists() and (runs / "regrouped" / "state.pt").exists()
    assert_same_weights(one, runs / "regrouped")


def test_a_state_of_other_batches_or_cut_short_is_refused(runs):
    with pytest.raises(CheckpointError, match="micro_batches=4, this one has 2"):
        train(runs / "two", fit=replace(FIT, micro_batches=2))
    part = next((runs / "parts" / "state" / "6").glob("*.distcp"))
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cut short or of another model"):
        train(runs / "parts")


def test_a_loss_that_is_not_finite_stops_both_before_the_update(runs):
    messages = [(runs / f"diverged-{rank}").read_text() for rank in (0, 1)]
    assert messages[0] == messages[1] and messages[0].startswith("step 1: loss nan")


def test_micro_batches_that_do_not_divide_are_refused():
    assert [list(Processes(rank, 2).share(4)) for rank in (0, 1)] == [[0, 2], [1, 3]]
    with pytest.raises(ConfigError, match="micro_batches=3 and 2 processes"):
        Processes(0, 2).share(3)


def test_micro_batches_are_the_mean_of_their_gradients(tmp_path):
    """One step on four micro-batches moves the weights as the same four samples sets in two micro-batches do."""
    models = {}
    for count in (1, 2):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 1)
        model.config = FIT
        data = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)).split(8 // count)
        config = replace(FIT, steps=1, micro_batches=count, gradient_clip=1e9)

        def step(batch, state, model=model):
            return model(batch).square().mean(), {}

        fit(model, step, data.__getitem__, config=config, folder=tmp_path / str(count), compute=CPU)
        models[count] = model
    torch.testing.assert_close(models[1].weight, models[2].weight)


def test_checkpointed_activations_give_the_same_gradients_and_leave_no_trace():
    def gradients(model):
        model.zero_grad()
        noisy = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
        model.dit(noisy, torch.ones(2, 3), torch.ones(2, 3, 3), previous=noisy)[0].square().mean().backward()
        return {name: parameter.grad for name, parameter in model.dit.named_parameters()}

    model = tiny_world_model()
    names, plain = list(model.state_dict()), gradients(model)
    runs = []
    for block in model.dit.blocks:
        block.mlp.register_forward_pre_hook(lambda *_: runs.append(None))
    with checkpoint_activations(model.shards().blocks):
        again = gradients(model)
        assert list(model.state_dict()) == names
    assert len(runs) == 2 * len(model.dit.blocks)  # forward, and again in the backward pass
    for name, gradient in plain.items():
        assert torch.equal(gradient, again[name]), name
    gradients(model)
    assert len(runs) == 3 * len(model.dit.blocks)
