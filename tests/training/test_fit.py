import errno
import json
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from torch import nn

from dreamdojo import files
from dreamdojo.errors import CheckpointError, ConfigError, DataError, TrainingDiverged
from dreamdojo.training import checkpoint
from dreamdojo.training.checkpoint import from_plain
from dreamdojo.training.fit import FitConfig, fit, is_finished
from dreamdojo.training.resume import saved_step
from dreamdojo.world_model.train import WorldModelTraining, train_world_model
from tests.tiny import CPU, latent_source, tiny_world_model


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.config = FitConfig(steps=1, batch_size=1, learning_rate=1.0)  # any dataclass will do
        self.layer = nn.Linear(2, 1)


def batches(index):
    random = torch.Generator().manual_seed(index)
    x = torch.randn(8, 2, generator=random)
    return x, x @ torch.tensor([[1.0], [-2.0]]) + 0.5


def step_of(model):
    def step(batch, state):
        x, y = batch
        noise = 0.01 * torch.randn(y.shape, generator=state.generator)
        loss = (model.layer(x) + noise - y).square().mean()
        return loss, {"error": loss}

    return step


def config(**changes):
    return FitConfig(
        **{"steps": 60, "batch_size": 8, "learning_rate": 0.2, "save_every": 7, "log_every": 5, "warmup_steps": 2}
        | changes
    )


def train(folder, **arguments):
    model = Line()
    fit(model, step_of(model), batches, config=config(), folder=folder, compute=CPU, **arguments)
    return model.state_dict()


def test_the_loss_falls(tmp_path):
    train(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.2 * rows[0]["loss"]
    assert is_finished(tmp_path, config())


@pytest.mark.parametrize("stop", [1, 7, 33])
def test_stopping_and_resuming_equals_not_having_stopped_bit_for_bit(tmp_path, stop):
    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", stop_at=stop)
    assert not is_finished(tmp_path / "parts", config())
    resumed = train(tmp_path / "parts")
    for name, value in whole.items():
        assert torch.equal(value, resumed[name])
    seconds_aside = [
        [
            {k: v for k, v in json.loads(line).items() if k != "seconds"}
            for line in (tmp_path / f / "metrics.jsonl").read_text().splitlines()
        ]
        for f in ("whole", "parts")
    ]
    assert seconds_aside[0] == seconds_aside[1]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_world_model_resumes_bit_for_bit(tmp_path, optimizer):
    training = WorldModelTraining(
        fit=FitConfig(steps=6, batch_size=4, learning_rate=1e-3, save_every=2, log_every=1, optimizer=optimizer),
        latent_frames=3,
        context_noise=0.1,
        emphasis=1.0,
    )
    sources = [latent_source(), latent_source(name="pusher", seed=1)]
    states = []
    for folder, stops in (("whole", [None]), ("parts", [3, 5, None])):
        for stop in stops:
            model = tiny_world_model()
            with torch.random.fork_rng():
                short = WorldModelTraining(**{**vars(training)})
                try:
                    train_world_model(
                        model, short, sources, tmp_path / folder, compute=CPU, **({"report": stopper(stop)})
                    )
                except KeyboardInterrupt:
                    continue
        states.append(model.state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])


def stopped_by_ctrl_c(folder):
    """Interrupt a run in its third step; whether what handled Ctrl-C before does so again."""
    model, before = Line(), signal.getsignal(signal.SIGINT)
    step = step_of(model)

    def interrupted(batch, state):
        if state.step == 3:
            signal.raise_signal(signal.SIGINT)
        return step(batch, state)

    with pytest.raises(KeyboardInterrupt):
        fit(model, interrupted, batches, config=config(), folder=folder, compute=CPU)
    return signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_stops_after_a_whole_step_and_saves_it(tmp_path):
    # in a process of its own: signals reach a main thread, which is not always the one that runs the tests
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        assert apart.submit(stopped_by_ctrl_c, tmp_path).result(), "the handler of before is back"
    assert saved_step(tmp_path) == 4


def stopper(at):
    def report(done, total, words):
        if done == at:
            raise KeyboardInterrupt

    return report


def test_divergence_stops_before_the_update_and_names_the_step(tmp_path):
    model = Line()
    seen = []

    def step(batch, state):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        loss, metrics = step_of(model)(batch, state)
        return loss * (float("nan") if state.step == 4 else 1.0), metrics

    with pytest.raises(TrainingDiverged, match="step 4"):
        fit(model, step, batches, config=config(), folder=tmp_path, compute=CPU)
    for name, value in model.state_dict().items():
        assert torch.equal(value, seen[-1][name])


def test_a_state_of_another_run_is_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_at=8)
    model = Line()
    with pytest.raises(CheckpointError, match="seed=0"):
        fit(model, step_of(model), batches, config=config(seed=1), folder=tmp_path, compute=CPU)


def test_a_truncated_state_is_refused_by_name(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_at=8)
    state = tmp_path / "state.pt"
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"state\.pt"):
        train(tmp_path)


def test_a_full_disk_keeps_what_was_written(tmp_path, monkeypatch):
    target = tmp_path / "value.json"
    files.write_json(target, {"a": 1})

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.Path, "write_text", full)
    with pytest.raises(DataError, match="disk full"):
        files.write_json(target, {"a": 2})
    assert files.read_json(target, of="a value") == {"a": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_checkpoints_come_back_and_foreign_or_cut_ones_are_refused(tmp_path):
    model = tiny_world_model()
    checkpoint.save_model(tmp_path / "model", model, about={"note": 1})
    again = checkpoint.load_model(tmp_path / "model", type(model))
    assert again.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert checkpoint.read_about(tmp_path / "model") == {"note": 1}

    with pytest.raises(CheckpointError, match="expected a Line"):
        checkpoint.load_model(tmp_path / "model", Line)
    with pytest.raises(CheckpointError, match="not a checkpoint folder"):
        checkpoint.load_model(tmp_path / "nothing", type(model))
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        checkpoint.load_model(tmp_path / "model", type(model))


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({"steps": "ten"}, "FitConfig.steps: expected a whole number, found 'ten'"),
        ({"steps": True}, "FitConfig.steps: expected a whole number, found True"),
        ({"checkpoint_activations": "yes"}, "FitConfig.checkpoint_activations: expected true or false, found 'yes'"),
    ],
)
def test_a_setting_of_another_kind_is_refused_by_name(plain, words):
    with pytest.raises(ConfigError, match=words):
        from_plain(FitConfig, {"steps": 1, "batch_size": 1, "learning_rate": 1, **plain})
