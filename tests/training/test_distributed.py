"""Two processes under torchrun (gloo) against one. They run once, in `two_processes.py`; a test looks at one trace."""

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
from tests.training.test_fit import rows_of
from tests.training.two_processes import FIT, train, train_small_addition, train_student


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders that two processes have written: two, parts (stopped and resumed), regrouped (stopped), diverged, ..."""
    folder = tmp_path_factory.mktemp("runs")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    torchrun += ["--max-restarts", "1", "--monitor-interval", "0.1"]
    for launcher, how in (([], "alone"), (torchrun, "together")):
        command = [sys.executable, *launcher, "-m", "tests.training.two_processes", how, str(folder)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        assert result.returncode == 0, result.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    train(folder)
    return folder


def approximately(rows):
    return [pytest.approx(row, rel=1e-5) for row in rows]


def assert_same_weights(a, b, file="model.safetensors"):
    expected, found = (load_file(folder / file) for folder in (a, b))
    assert list(expected) == list(found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_two_processes_compute_what_one_does(runs, one):
    alone, together = rows_of(one), rows_of(runs / "two")
    assert len(alone) == FIT.steps
    assert min(row["gradient_norm"] for row in alone) > FIT.gradient_clip
    assert alone == approximately(together)
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
    assert rows_of(runs / "parts") == rows_of(runs / "two")  # which also computed its activations again
    whole, parts = (load_file(runs / name / "model.safetensors") for name in ("two", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_one_process_goes_on_with_the_state_of_two_and_two_with_that_of_one(runs, one):
    train(runs / "regrouped")
    assert [path.name for path in (runs / "regrouped" / "state" / "6").glob("*.safetensors")] == ["0.safetensors"]
    assert_same_weights(one, runs / "regrouped")
    assert_same_weights(one, runs / "spread")  # one process made its first three steps
    assert rows_of(one) == approximately(rows_of(runs / "spread"))


def test_a_state_of_other_batches_or_cut_short_is_refused(runs):
    with pytest.raises(CheckpointError, match="micro_batches=4, this one has 2"):
        train(runs / "two", fit=replace(FIT, micro_batches=2))
    part = runs / "parts" / "state" / "6" / "1.safetensors"
    whole = part.read_bytes()
    part.write_bytes(whole[:100])
    with pytest.raises(CheckpointError, match=r"1\.safetensors is cut short"):
        train(runs / "parts")
    part.write_bytes(whole)
    (runs / "parts" / "state" / "6" / "0.safetensors").write_bytes(whole)
    with pytest.raises(CheckpointError, match="cut short or of another model"):
        train(runs / "parts")


def test_in_bfloat16_two_processes_keep_weights_moments_and_average_in_float32(runs):
    parts = [load_file(runs / "bfloat16" / "state" / "2" / f"{rank}.safetensors") for rank in (0, 1)]
    assert {value.dtype for part in parts for value in part.values()} == {torch.float32}
    exact, rounded = rows_of(runs / "two")[:2], rows_of(runs / "bfloat16")
    assert exact != rounded
    for a, b in zip(exact, rounded, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=0.05)


def test_a_process_that_is_killed_is_started_again_and_nothing_is_lost(runs):
    """Under `torchrun --max-restarts`: rank 1 kills itself in the fifth step; a state was saved after the fourth."""
    assert (runs / "killed-1").exists()
    assert rows_of(runs / "killed") == rows_of(runs / "two")
    whole, killed = ((runs / name / "model.safetensors").read_bytes() for name in ("two", "killed"))
    assert whole == killed


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
