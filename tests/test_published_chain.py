"""The published layout at toy size, as its user goes: convert, generate, post-train on a robot of one's own, drive."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from dreamdojo import cli, stages
from dreamdojo.commands import train_and_test
from dreamdojo.convert.convert import ConvertSettings, convert
from dreamdojo.dataset.published import ACTION_WIDTH, RESERVED_SLOT
from dreamdojo.dataset.read import open_dataset
from dreamdojo.errors import CheckpointError, ConfigError
from dreamdojo.presets import PAPER_2B
from dreamdojo.rollout.session import load_session, observation
from dreamdojo.tokenizer.load import load_tokenizer
from dreamdojo.training.checkpoint import load_model, read_class
from dreamdojo.training.fit import FitConfig
from dreamdojo.training.progress import no_line
from dreamdojo.world import World
from dreamdojo.world_model.model import WorldModel
from tests.convert import published
from tests.test_chain import record
from tests.tiny import CPU, PUSHER

SIZE = (32, 48)


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    return record(tmp_path_factory.mktemp("data") / "robot", robot=True, episodes=4, frames=32, seed=1)


@pytest.fixture(scope="module", params=["teacher", "student"])
def models(request, tmp_path_factory):
    """A converted toy model, made for toy pictures and knowing the toy robot."""
    folder = tmp_path_factory.mktemp(request.param)
    student = request.param == "student"
    torch.save(published.network(student=student), folder / "model_ema_bf16.pt")
    torch.save(published.text_embedding(), folder / "text.pt")
    torch.save(published.tokenizer(), folder / "vae.pth")
    settings = ConvertSettings(
        world_model=folder / "model_ema_bf16.pt",
        text=folder / "text.pt",
        tokenizer=folder / "vae.pth",
        student=student,
    )
    convert(settings, folder / "model", no_line)
    config = folder / "model" / "world_model" / "config.json"
    stored = json.loads(config.read_text())
    stored["config"]["size"] = list(SIZE)
    stored["about"]["sampler"]["steps"] = 2
    config.write_text(json.dumps(stored))
    return folder / "model"


def toy_preset(model: WorldModel, tokenizer):
    fit = FitConfig(steps=3, batch_size=2, learning_rate=1e-3, warmup_steps=1, log_every=1, checkpoint_activations=True)
    return replace(
        PAPER_2B,
        size=SIZE,
        tokenizer=tokenizer,
        text_tokens=model.config.text_tokens,
        world_model=replace(model.config.dit, causal=False, window=None),
        posttraining=replace(PAPER_2B.posttraining, fit=fit),
        latent_action_size=None,
    )


def test_a_converted_model_is_post_trained_on_a_robot_of_its_own_and_driven(models, robot, tmp_path):
    model = load_model(models / "world_model", WorldModel)
    assert model.config.dit.action_dim == ACTION_WIDTH
    tokenizer = load_tokenizer(models / "tokenizer")
    run = stages.Run(folder=tmp_path, preset=toy_preset(model, tokenizer.config), compute=CPU, workers=1)
    with pytest.raises(CheckpointError, match="found a WanTokenizer"):
        stages.start_from(tmp_path, models / "tokenizer")
    stages.start_from(tmp_path, models / "world_model")
    assert read_class(tmp_path / "tokenizer") == "WanTokenizer"
    episodes, _ = train_and_test(open_dataset(robot), test_fraction=0.4, minutes=None)
    trained = stages.posttrain_stage(run, episodes, None)
    [body] = [body for body in trained.config.embodiments if body.name == PUSHER.name]
    assert body.relative and body.slot == RESERVED_SLOT.start

    k = 4 if model.config.dit.causal else 12
    session = load_session(tmp_path / "teacher", embodiment=PUSHER.name, device="cpu", steps=1)
    assert isinstance(session, World) and session.actions_per_step == k
    frame = torch.randint(0, 255, (*SIZE, 3), dtype=torch.uint8).numpy()
    videos = []
    for _ in range(2):
        session.reset(observation(frame, torch.zeros(2).numpy(), session.size), seed=3)
        videos.append(torch.cat([session.step(torch.full((1, k, 2), 0.3)).frames["head"] for _ in range(2)], dim=1))
    assert videos[0].shape == (1, 2 * k, 3, *SIZE) and torch.equal(*videos)

    batch = session.fork(3)
    assert batch.step(torch.zeros(3, k, 2)).frames["head"].shape == (3, k, 3, *SIZE)


def test_only_relative_actions_reach_the_model(models, tmp_path, robot):
    model = load_model(models / "world_model", WorldModel)
    if model.config.dit.causal:
        pytest.skip("the same code for both")
    body = stages.body_for(model, open_dataset(robot).embodiment)
    wider = model.with_embodiments(body)
    session = stages_session(wider, models)
    seen = []
    session._model.dit.register_forward_pre_hook(lambda _, given: seen.append(given[2].clone()))
    frame = torch.zeros(*SIZE, 3, dtype=torch.uint8).numpy()
    session.reset(observation(frame, None, SIZE))
    session.step(torch.full((1, 12, 2), 0.25))
    assert not seen[-1].any()  # commands that do not change are no change
    session.step(torch.full((1, 12, 2), 0.5))
    actions = seen[-1][0, 1:].unflatten(-1, (4, ACTION_WIDTH))[..., body.slot : body.slot + 2]
    torch.testing.assert_close(actions[0], torch.full((4, 2), 0.5))  # normalised: (0.5 - 0.25) / 0.5
    assert not actions[1:].any()


def stages_session(model, models):
    from dreamdojo.rollout.session import Session
    from dreamdojo.world_model.sample import SamplerConfig

    body = model.config.embodiments[-1]
    sampler = SamplerConfig(steps=1, solver="unipc")
    return Session(model, load_tokenizer(models / "tokenizer"), sampler, embodiment=body, compute=CPU)


def test_a_recorded_episode_is_generated_and_laid_beside_its_recording(models, robot, tmp_path, capsys):
    model = load_model(models / "world_model", WorldModel)
    body = stages.body_for(model, open_dataset(robot).embodiment)
    from dreamdojo.training.checkpoint import read_about, save_model

    save_model(tmp_path / "m" / "world_model", model.with_embodiments(body), about=read_about(models / "world_model"))
    (tmp_path / "m" / "tokenizer").symlink_to(models / "tokenizer")
    arguments = ["generate", str(tmp_path / "m" / "world_model"), "--robot", str(robot), "--out", str(tmp_path / "out")]
    cli.main([*arguments, "--frames", "12", "--device", "cpu"])
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["frames"] == 12 and metrics["psnr"] > 0 and metrics["psnr_copy"] > metrics["psnr"]
    assert (tmp_path / "out" / "truth_prediction.mp4").stat().st_size > 0
    with pytest.raises(SystemExit):
        cli.main([*arguments, "--start", "30", "--device", "cpu"])
    assert "one step of" in capsys.readouterr().err


def test_a_run_that_began_with_one_model_cannot_begin_with_another(models, tmp_path):
    stages.start_from(tmp_path, models / "world_model")
    stages.start_from(tmp_path, models / "world_model")
    other = shutil.copytree(models, tmp_path / "other")
    with pytest.raises(ConfigError, match="Use another run folder"):
        stages.start_from(tmp_path, other / "world_model")
