import errno
import json
import shutil
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dreamdojo import files
from dreamdojo.dataset.windows import Windows
from dreamdojo.errors import CheckpointError, ConfigError, DataError, TrainingDiverged
from dreamdojo.training import checkpoint
from dreamdojo.training.checkpoint import from_plain
from dreamdojo.training.distributed import Processes
from dreamdojo.training.fit import FitConfig, fit, is_finished
from dreamdojo.training.optimizer import make_optimizer
from dreamdojo.training.prefetch import each_tensor, prefetched
from dreamdojo.training.resume import STATE_FORMAT, Resumable, saved_step
from dreamdojo.training.speed import SPEEDS, Work, measured_peak
from dreamdojo.world_model.train import WorldModelTraining, train_world_model
from tests.tiny import CPU, latent_source, tiny_world_model


class Line(nn.Module):
    def __init__(self, config: FitConfig | None = None):
        super().__init__()
        torch.manual_seed(0)
        self.config = config or FitConfig(steps=1, batch_size=1, learning_rate=1.0)  # any dataclass will do
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


def rows_of(folder):
    """The log without its speeds, which are never the same."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in SPEEDS} for row in rows]


def train(folder, **arguments):
    model = Line()
    fit(model, step_of(model), batches, config=config(), folder=folder, compute=CPU, **arguments)
    return model.state_dict()


def test_the_loss_falls(tmp_path):
    train(tmp_path)
    rows = rows_of(tmp_path)
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
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "parts")


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
    state = tmp_path / "state" / "8" / "0.safetensors"
    state.write_bytes(state.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"state/8 is cut short.*0\.safetensors"):
        train(tmp_path)


def test_a_foreign_or_newer_version_is_refused_by_name(tmp_path):
    """A model folder and a training state, each with both formats in the message."""
    train(tmp_path / "model")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "state", stop_at=8)
    for file, load, known in (
        (tmp_path / "model" / "config.json", lambda: checkpoint.load_model(tmp_path / "model", Line), "dreamdojo/1"),
        (tmp_path / "state" / "state" / "8" / "settings.json", lambda: train(tmp_path / "state"), STATE_FORMAT),
    ):
        whole = files.read_json(file, of="a checkpoint")
        for found in ("dreamdojo/2", "somebody-else/1", None):
            files.write_json(file, {**whole, "format": found})
            with pytest.raises(CheckpointError, match=f"{file.name}: expected format '{known}', found {found!r}"):
                load()
        files.write_json(file, whole)
        load()


def test_the_state_of_an_earlier_version_is_read(tmp_path):
    """`state.pt` with the optimizer's moments by number, as one process wrote it before states were folders."""
    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "old", stop_at=9)
    model = Line()
    optimizer = make_optimizer(model, "adamw", learning_rate=0.1, weight_decay=0.01, betas=(0.9, 0.99))
    averaged = {name: value.clone() for name, value in model.state_dict().items()}
    settings = {"seed": 0, "batch_size": 8}
    run = Resumable(tmp_path / "old", model, optimizer, averaged, settings, Processes())
    state = {"step": run.load(), **settings, "model": model.state_dict(), "averaged": averaged}
    shutil.rmtree(tmp_path / "old" / "state")
    torch.save({**state, "optimizer": optimizer.state_dict()}, tmp_path / "old" / "state.pt")
    assert saved_step(tmp_path / "old") == 9
    resumed = train(tmp_path / "old")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    assert not (tmp_path / "old" / "state.pt").exists()


def test_a_log_that_ends_in_half_a_row_is_mended(tmp_path):
    train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", stop_at=12)
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 15, "lo')
    train(tmp_path / "parts")
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "parts")


def test_three_runs_with_one_seed_write_the_same_bytes(tmp_path):
    for name in "abc":
        train(tmp_path / name)
    for file in ("model.safetensors", "config.json", "state/60/0.safetensors"):
        assert len({(tmp_path / name / file).read_bytes() for name in "abc"}) == 1, file
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b") == rows_of(tmp_path / "c")


def test_batches_come_in_order_and_their_error_in_the_step_that_wants_them(tmp_path):
    threads, asked = set(), []

    def broken(index):
        threads.add(threading.current_thread())
        asked.append(index)
        if index == 5:
            raise DataError("episode 7 is broken")
        return batches(index)

    model = Line()
    with pytest.raises(DataError, match="episode 7"):
        fit(model, step_of(model), broken, config=config(log_every=1), folder=tmp_path, compute=CPU)
    assert rows_of(tmp_path)[-1]["step"] == 5
    assert asked == sorted(asked) and max(asked) <= 5 + 2
    assert threading.current_thread() not in threads and not any(thread.is_alive() for thread in threads)


def test_the_next_batch_is_made_while_the_model_computes():
    """The consumer never lets go before the batch after its own has begun, so without overlap this would not end."""
    begun = [threading.Event() for _ in range(5)]

    def make(index):
        begun[index].set()
        return index

    with prefetched(make, iter(range(4)), torch.device("cpu")) as batches_:
        for number, batch in batches_:
            assert number == batch
            assert number == 3 or begun[number + 1].wait(timeout=20)


def test_tensors_are_found_wherever_a_batch_keeps_them():
    windows = Windows({"pusher": {"chunk": torch.ones(2)}})
    moved = each_tensor((windows, [torch.ones(1)], "text"), lambda tensor: tensor + 1)
    assert moved[0].by_embodiment["pusher"]["chunk"].tolist() == [2, 2]
    assert moved[1][0].item() == 2 and moved[2] == "text"


def test_the_log_tells_speeds_of_all_processes_and_the_share_of_the_hardware(tmp_path):
    lines, work = [], Work(frames=4, tokens=16, flops=3e6)
    model = Line()
    told = replace(CPU, peak_flops=1e9)
    report = lambda done, total, words: lines.append(words)  # noqa: E731
    fit(model, step_of(model), batches, config=config(), folder=tmp_path, compute=told, work=work, report=report)
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    samples = row["samples_per_second"]
    assert row["frames_per_second"] == pytest.approx(4 * samples)
    assert row["tokens_per_second"] == pytest.approx(16 * samples)
    assert row["model_flops_utilisation"] == pytest.approx(samples * 3e6 / 1e9)
    assert "frames/s" in lines[-1] and lines[-1].endswith("% of peak")
    assert 1e8 < measured_peak(torch.device("cpu"), False, size=128) < 1e14


def test_weights_stay_in_float32_where_bfloat16_computes(tmp_path):
    """Updates far below the last bit of bfloat16 add up, in weights and in what a run resumes from."""
    model = Line()
    before = model.layer.weight.detach().clone()
    small = config(learning_rate=1e-5, steps=50, final_learning_rate=1.0, weight_decay=0.0)
    fit(model, step_of(model), batches, config=small, folder=tmp_path, compute=replace(CPU, autocast=True))
    moved = (model.layer.weight - before).abs()
    assert moved.min() > 1e-4 and moved.max() < 6e-4 < 2**-9 * before.abs().max()
    part = load_file(tmp_path / "state" / "50" / "0.safetensors")
    assert {value.dtype for value in part.values()} == {torch.float32}


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
