"""The deterministic predictor learns what actions do, and a session of it says what its training rolled out."""

import numpy as np
import pytest
import torch

from dreamdojo.dataset.windows import Source, Windows
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.evaluation.predict import Recording, plan_clips, predict
from dreamdojo.evaluation.regression import (
    LatentPredictor,
    PredictorConfig,
    PredictorTraining,
    RegressionSession,
    load_regression_session,
    predictor_flops,
    told_of,
    train_predictor,
)
from dreamdojo.rollout.session import CAMERA
from dreamdojo.tokenizer.model import from_pixels, to_pixels
from dreamdojo.training.checkpoint import save_model
from dreamdojo.training.fit import FitConfig
from dreamdojo.world import Observation, World
from dreamdojo.world_model.model import LATENT_ACTION
from dreamdojo.world_model.train import latent_episode
from tests.tiny import CPU, PUSHER, awake, tiny_tokenizer

SIDE = 8


def tiny_predictor(k=1):
    torch.manual_seed(0)
    return LatentPredictor(
        PredictorConfig(
            latent_channels=4,
            size=(16, 16),
            rate=10.0,
            embodiment=PUSHER,
            actions_per_latent=k,
            width=8,
            action_width=8,
        )
    )


def pushed_blob(seed, frames=12):
    """A blob that actions push over the latent grid, two numbers in [-1, 1] a frame."""
    random = np.random.default_rng(seed)
    actions = random.uniform(-1, 1, (frames - 1, 2)).astype(np.float32)
    place = (random.uniform(2, 5, 2) + np.concatenate([np.zeros((1, 2)), np.cumsum(actions, axis=0)])) % SIDE
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), axis=-1)
    away = (grid - place[:, None, None] + SIDE / 2) % SIDE - SIDE / 2
    picture = np.exp(-(away**2).sum(axis=-1) / 2)[:, None].repeat(4, axis=1)
    return latent_episode(picture.astype(np.float32), actions, 1)


def observation(frames):
    return Observation(frames={CAMERA: frames})


def test_it_learns_what_actions_do(tmp_path):
    training = PredictorTraining(
        fit=FitConfig(steps=90, batch_size=8, learning_rate=1e-2, warmup_steps=10, ema_decay=0.9), context=2, rollout=2
    )
    model = tiny_predictor()
    source = Source(embodiment=PUSHER.name, episodes=[pushed_blob(seed) for seed in range(40)])
    train_predictor(model, training, [source], tmp_path, compute=CPU)
    new = [pushed_blob(100 + seed) for seed in range(30)]
    latents, chunks = (torch.from_numpy(np.stack([each[key] for each in new])) for key in ("latent", "chunk"))
    given = torch.full((30,), 2)

    def error(told):
        with torch.no_grad():
            return (model.roll_out(latents, model.tell(told), given)[:, 1:5] - latents[:, 2:6]).square().mean()

    copied = (latents[:, 1:2] - latents[:, 2:6]).square().mean()
    assert error(chunks) < 0.6 * copied and error(chunks) < 0.6 * error(chunks.roll(1, dims=0))


def test_after_the_given_frames_it_sees_its_own_predictions_only():
    model = awake(tiny_predictor())
    latents = torch.randn(3, 6, 4, SIDE, SIDE)
    told, given = torch.randn(3, 6, 8), torch.tensor([1, 3, 5])
    changed = latents.clone()
    for clip, count in enumerate(given):
        changed[clip, count:] = 9.0
    torch.testing.assert_close(model.roll_out(changed, told, given), model.roll_out(latents, told, given))
    seen = latents.clone()
    seen[1, 2] = 9.0
    assert not torch.allclose(model.roll_out(seen, told, given)[1, 2], model.roll_out(latents, told, given)[1, 2])


def test_video_without_actions_tells_nothing():
    model = awake(tiny_predictor())
    windows = {name: {"chunk": torch.randn(2, 4, 2)} for name in (LATENT_ACTION, PUSHER.name)}
    told = told_of(model, Windows(windows), CPU.device)
    assert not told[:2].any() and told[2:].abs().min() > 0


@pytest.mark.parametrize("k", [1, 2])
def test_a_session_says_what_training_rolled_out(k):
    model, tokenizer = awake(tiny_predictor(k)), tiny_tokenizer(k)
    frames = torch.randint(256, (2, 1 + 2 * k, 3, 16, 16), dtype=torch.uint8)
    actions = 0.4 * torch.rand(2, 4 * k, 2)
    session = RegressionSession(model, tokenizer, compute=CPU)
    assert isinstance(session, World)
    session.reset(observation(frames[:, :1]))
    session.observe(observation(frames[:, 1:]), actions[:, : 2 * k])
    said = torch.cat([session.step(actions[:, i : i + k]).frames[CAMERA] for i in (2 * k, 3 * k)], dim=1)
    normal = torch.from_numpy(PUSHER.normalize_action(actions.numpy())).float().unflatten(1, (4, k)).flatten(2)
    with torch.no_grad():
        latents, _ = tokenizer.encode(from_pixels(frames))
        padded = torch.cat([latents, torch.zeros(2, 2, *latents.shape[2:])], dim=1)
        told = torch.cat([torch.zeros(2, 1, 8), model.tell(normal)], dim=1)
        rolled = model.roll_out(padded, told, torch.tensor([3, 3]))[:, 2:]
        pictures, _ = tokenizer.decode(torch.cat([latents, rolled], dim=1))
    torch.testing.assert_close(said, to_pixels(pictures[:, -2 * k :]), atol=1, rtol=0)


def test_clips_are_predicted_as_with_every_other_session(tmp_path):
    save_model(tmp_path / "model", awake(tiny_predictor()))
    save_model(tmp_path / "tokenizer", tiny_tokenizer())
    session = load_regression_session(tmp_path / "model", device="cpu")
    random = np.random.default_rng(0)
    recordings = [
        Recording(
            frames=random.integers(0, 256, (12, 3, 16, 16), dtype=np.uint8),
            actions=random.uniform(-0.5, 0.5, (11, 2)).astype(np.float32),
        )
        for _ in range(3)
    ]
    plan = plan_clips(recordings, context=3, horizon=4, seed=0, least_clips=3)
    video = predict(session, plan)
    assert video.shape == plan.truth.shape and torch.equal(video, predict(session, plan, seed=1))
    assert not torch.equal(video, predict(session, plan, other_actions=True))


def test_a_fork_goes_its_own_way():
    session = RegressionSession(awake(tiny_predictor()), tiny_tokenizer(), compute=CPU)
    session.reset(observation(torch.randint(256, (1, 1, 3, 16, 16), dtype=torch.uint8)))
    twins, push = session.fork(2), torch.tensor([[[0.4, 0.0]], [[-0.4, 0.0]]])
    first, second = twins.step(push).frames[CAMERA]
    assert not torch.equal(first, second)
    assert torch.equal(session.step(push[:1]).frames[CAMERA][0], first)


def test_what_cannot_be_used_is_refused():
    with pytest.raises(ConfigError, match="4 latent channels and 1 frames to a latent, got 4 and 2"):
        RegressionSession(tiny_predictor(), tiny_tokenizer(2), compute=CPU)
    session = RegressionSession(tiny_predictor(), tiny_tokenizer(), compute=CPU)
    with pytest.raises(ConfigError, match="reset"):
        session.step(torch.zeros(1, 1, 2))
    session.reset(observation(torch.zeros(1, 1, 3, 16, 16, dtype=torch.uint8)))
    with pytest.raises(DataError, match="finite"):
        session.step(torch.full((1, 1, 2), torch.nan))
    with pytest.raises(DataError, match="b k a"):
        session.step(torch.zeros(1, 2, 2))


def test_operations_are_those_of_the_frames_rolled_out():
    config = tiny_predictor().config
    one, three = (predictor_flops(config, 8, 8, frames=frames) for frames in (2, 4))
    assert three == 3 * one > 0
