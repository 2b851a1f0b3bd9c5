import numpy as np
import pytest
import torch

from dreamdojo.dataset.windows import WindowSampler
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.flow.rectified import interpolate
from dreamdojo.nn.patches import actions_to_chunks, chunks_to_actions, from_pairs, from_patches, to_pairs, to_patches
from dreamdojo.training.fit import FitConfig
from dreamdojo.world_model.dit import DiT, DiTConfig, KeyValue
from dreamdojo.world_model.losses import flow_loss
from dreamdojo.world_model.model import LATENT_ACTION
from dreamdojo.world_model.sample import CausalSampler, SamplerConfig, settled
from dreamdojo.world_model.train import WorldModelTraining, corrupt, latent_episode
from tests.tiny import LATENT_DIM, PUSHER, latent_source, tiny_dit, tiny_world_model

CONVOLUTIONS = {"convolution_width": 8, "convolution_blocks": 1}


def test_convolutions_see_across_the_borders_of_patches():
    far, noisy = {}, torch.zeros(1, 1, 4, 4, 4)
    bump = noisy.clone()
    bump[..., 0, 0] = 5.0
    for name, changes in {"none": {}, "both": CONVOLUTIONS}.items():
        dit = tiny_world_model(num_blocks=0, **changes).dit  # without blocks, tokens do not see each other
        answers = [dit(x, torch.ones(1, 1), torch.zeros(1, 1, LATENT_DIM), previous=noisy)[0] for x in (noisy, bump)]
        far[name] = (answers[1] - answers[0])[..., 2:, 2:].abs().max()
    assert far["none"] == 0 and far["both"] > 1e-4


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_every_latent_action_returns_to_its_own_sample_and_time(batch):
    ids = torch.arange(batch * 5, dtype=torch.float).view(batch, 5, 1, 1, 1)  # each frame carries its number
    first_of_pair = to_pairs(ids)[:, 0].reshape(-1, 1)
    torch.testing.assert_close(from_pairs(first_of_pair, batch=batch)[..., 0], ids[:, :-1, 0, 0, 0])


@pytest.mark.parametrize("batch", [1, 3])
def test_actions_come_home_from_their_chunks(batch):
    actions = torch.arange(batch * 8 * 2, dtype=torch.float).view(batch, 8, 2)
    chunks = actions_to_chunks(actions, 4)
    assert chunks[0, 1].tolist() == actions[0, 4:8].flatten().tolist()
    assert torch.equal(chunks_to_actions(chunks, 4), actions)


def test_patches_come_home():
    frames = torch.arange(2 * 3 * 3 * 8 * 12, dtype=torch.float).view(2, 3, 3, 8, 12)
    assert torch.equal(from_patches(to_patches(frames, 4), 4, height=8), frames)


def test_a_block_is_the_identity_at_the_start():
    model = DiT(tiny_dit(previous_latent=False))
    x = torch.randn(1, 3, 4, 32)
    model.time_embedding[2].weight.data.zero_()
    e = torch.randn(1, 3, 32)
    out, _ = model.blocks[0](
        x, e, torch.zeros(1, 3, 96), angles=model.rotary_angles(3, 2, 2), mask=None, past=None, text=None
    )
    torch.testing.assert_close(out, x)


@pytest.mark.parametrize("changes", [{}, CONVOLUTIONS])
def test_a_residual_model_starts_as_nothing_moves(changes):
    model = DiT(tiny_dit(**changes))
    previous = torch.randn(2, 3, 4, 4, 4)
    out, _ = model(torch.randn_like(previous), torch.rand(2, 3), torch.randn(2, 3, LATENT_DIM), previous=previous)
    torch.testing.assert_close(out, previous)


@pytest.mark.parametrize("changes", [{}, CONVOLUTIONS])
def test_the_past_of_a_causal_model_does_not_move_when_its_future_changes(changes):
    dit = tiny_world_model(**changes).dit
    noisy, previous = torch.randn(1, 4, 4, 4, 4), torch.randn(1, 4, 4, 4, 4)
    sigma, action = torch.rand(1, 4), torch.randn(1, 4, LATENT_DIM)
    before, _ = dit(noisy, sigma, action, previous=previous)
    changed = [x.clone() for x in (noisy, sigma, action, previous)]
    for x in changed:
        x[:, 2:] += 1
    after, _ = dit(*changed[:3], previous=changed[3])
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert not torch.allclose(after[:, 2:], before[:, 2:])


@pytest.mark.parametrize("changes", [{}, CONVOLUTIONS])
def test_a_frame_feels_its_own_action_and_only_from_then_on(changes):
    dit = tiny_world_model(**changes).dit
    noisy = torch.randn(2, 4, 4, 4, 4)
    sigma, action = torch.rand(2, 4), torch.randn(2, 4, LATENT_DIM)
    before, _ = dit(noisy, sigma, action, previous=noisy)
    action[0, 2] += 1
    after, _ = dit(noisy, sigma, action, previous=noisy)
    moved = (after - before).abs().amax(dim=(2, 3, 4)) > 1e-6
    assert moved.tolist() == [[False, False, True, True], [False] * 4]


@pytest.mark.parametrize(("k", "changes"), [(1, {}), (4, {}), (1, CONVOLUTIONS), (1, {"reference_latent": True})])
def test_cached_rollout_equals_the_uncached_one_also_after_the_window_rolls(k, changes):
    model = tiny_world_model(k, **changes)
    window = model.config.dit.window
    sampler = CausalSampler(model, SamplerConfig(steps=2), window)
    random = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 7, 4, 4, 4, generator=random)
    chunks = torch.randn(2, 7, LATENT_DIM * k, generator=random)
    noise = torch.randn(2, 4, 4, 4, generator=random)

    state = sampler.start(latents[:, 0])
    for i in range(1, 7):
        state = sampler.commit(state, chunks[:, i], latents[:, i], [])
        assert state.num_frames == min(i + 1, window - 1)
    chunk = torch.randn(2, LATENT_DIM * k, generator=random)
    cached = sampler.clean(state, noise, 0.7, chunk)

    # the same without a cache: each block's window reaches back further, so the whole past is run through the mask
    previous = torch.cat([latents[:, :1], latents], dim=1)
    sigma = torch.cat([torch.zeros(2, 7), torch.full((2, 1), 0.7)], dim=1)
    with torch.no_grad():
        uncached, _ = model.dit(
            torch.cat([latents, noise[:, None]], dim=1),
            sigma,
            torch.cat([chunks, chunk[:, None]], dim=1),
            previous=previous,
            reference=latents[:, 0],
        )
    torch.testing.assert_close(cached, uncached[:, -1], atol=1e-5, rtol=1e-4)


def test_the_cache_is_never_changed_in_place():
    model = tiny_world_model()
    sampler = CausalSampler(model, SamplerConfig(steps=1), 3)
    state = sampler.start(torch.randn(1, 4, 4, 4))
    kept = state.past[0].key.clone()
    chunk, noise = torch.randn(1, LATENT_DIM), torch.randn(1, 4, 4, 4)
    first = sampler.step(state, chunk, noise).last
    sampler.step(state, chunk + 1, noise)
    assert torch.equal(state.past[0].key, kept)
    assert torch.equal(sampler.step(state, chunk, noise).last, first)


@pytest.mark.parametrize("window", [1, 2, 3, None])
def test_the_cache_holds_the_frames_of_the_window_and_no_memory_beside_them(window):
    model = tiny_world_model(window=window)
    sampler = CausalSampler(model, SamplerConfig(steps=1), window)
    state = sampler.start(torch.randn(1, 4, 4, 4))
    for _ in range(4):
        state = sampler.append(state, torch.randn(1, 4, 4, 4), torch.randn(1, LATENT_DIM))
    assert state.num_frames == (5 if window is None else max(window - 1, 1))
    key = state.past[0].key
    assert key.untyped_storage().nbytes() == key.nbytes


def test_rotary_angles_are_made_once_for_a_grid_and_device():
    dit = tiny_world_model().dit
    assert dit.rotary_angles(3, 2, 2) is DiT(tiny_dit()).rotary_angles(3, 2, 2, torch.device("cpu"))
    with torch.device("meta"):  # as costs are counted; the table of the CPU stays one of the CPU
        assert dit.rotary_angles(3, 5, 2).device.type == "cpu"
        assert dit.rotary_angles(3, 5, 2, torch.device("meta")).device.type == "meta"


def test_a_perfect_prediction_has_no_loss_and_the_motion_term_sees_a_flicker():
    random = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(2, 4, 3, 5, 5, generator=random) for _ in range(2))
    sigma = torch.rand(2, 4, generator=random) * 0.5 + 0.5
    counts = torch.ones(2, 4)
    point = interpolate(clean, noise, sigma)
    config = tiny_dit(previous_latent=False, prediction="velocity")

    def loss(prediction, **changes):
        return flow_loss(
            prediction,
            config=config,
            clean=clean,
            point=point,
            sigma=sigma,
            counts=counts,
            motion_weight=0.1,
            **changes,
        )

    assert loss(point.velocity).total == 0
    constant = loss(point.velocity + 1)
    torch.testing.assert_close(constant.velocity, torch.tensor(1.0))
    torch.testing.assert_close(constant.motion, torch.tensor(0.0))
    flicker = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 4, 1, 1, 1)
    torch.testing.assert_close(loss(point.velocity + flicker).motion, torch.tensor(4.0))


def test_given_frames_do_not_count():
    clean, noise = torch.randn(1, 3, 2, 4, 4), torch.randn(1, 3, 2, 4, 4)
    sigma, counts = torch.full((1, 3), 0.8), torch.tensor([[0.0, 1.0, 1.0]])
    point = interpolate(clean, noise, sigma)
    config = tiny_dit(previous_latent=False, prediction="velocity")
    wrong = point.velocity.clone()
    wrong[:, 0] += 100
    assert flow_loss(wrong, config=config, clean=clean, point=point, sigma=sigma, counts=counts).total == 0


def test_given_frames_are_clean_and_the_start_has_no_action_and_no_past():
    model = tiny_world_model()
    training = WorldModelTraining(
        fit=FitConfig(steps=1, batch_size=64, learning_rate=1.0), latent_frames=3, start_fraction=1.0
    )
    batch = WindowSampler([latent_source()], length=4, batch_size=64, seed=0)(0)
    given = corrupt(model, batch, training, torch.Generator().manual_seed(0), torch.device("cpu"))
    clean = given.counts == 0
    assert clean[:, 0].all() and not clean[:, -1].any()
    torch.testing.assert_close(given.noisy[clean], given.clean[clean])
    assert (given.has_action[:, 0] == 0).all() and (given.has_action[:, 1:] == 1).all()
    torch.testing.assert_close(given.previous[:, 0], given.noisy[:, 0])
    torch.testing.assert_close(given.previous[:, 1:], batch.by_embodiment[LATENT_ACTION]["latent"][:, 1:-1])


def test_row_i_of_an_episode_holds_the_actions_that_lead_to_latent_i():
    latents = np.zeros((3, 1, 1, 1))
    actions = np.arange(10, dtype=np.float32)[:, None]
    assert latent_episode(latents, actions, 4)["chunk"].tolist() == [[0] * 4, [0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(DataError, match="at least 8 actions"):
        latent_episode(latents, actions[:7], 4)
    actions[5] = np.nan
    with pytest.raises(DataError, match="action 5 is not finite"):
        latent_episode(latents, actions, 4)


def test_an_adapter_starts_as_its_linear_part():
    model = tiny_world_model()
    adapter = type(model.adapter("pusher"))(2, LATENT_DIM, 8)
    weight, bias = torch.randn(LATENT_DIM, 2), torch.randn(LATENT_DIM)
    adapter.start_from(weight, bias)
    chunk = torch.randn(5, 2)
    torch.testing.assert_close(adapter(chunk), chunk @ weight.T + bias)


def test_a_new_body_leaves_the_rest_of_the_model_alone():
    from dataclasses import replace

    model = tiny_world_model()
    wider = model.with_embodiments(replace(PUSHER, name="other"))
    for name, value in model.state_dict().items():
        assert torch.equal(wider.state_dict()[name], value)
    with pytest.raises(ConfigError, match="knows: pusher, other"):
        wider.conditioning("third", torch.zeros(1, 1, 2))


def test_settings_that_cannot_work_together_are_refused():
    with pytest.raises(ConfigError, match="num_heads=5"):
        tiny_dit(num_heads=5)
    with pytest.raises(ConfigError, match="convolution_width must be a multiple of 8, got 12"):
        tiny_dit(convolution_width=12)
    with pytest.raises(ConfigError, match="previous_latent needs"):
        tiny_dit(causal=False, window=None)
    with pytest.raises(ConfigError, match="needs causal=True"):
        DiTConfig(latent_channels=4, dim=32, num_heads=2, num_blocks=1, action_dim=1, window=3)


@torch.no_grad()
@pytest.mark.parametrize(("commit", "window", "sink"), [("extra_pass", 4, 1), ("last_step", 4, 2), ("last_step", 3, 0)])
def test_a_rolled_cache_holds_what_a_memory_of_everything_would_give(commit, window, sink):
    """The same rollout by a list of every frame's keys and values, of which each frame is shown sink and newest."""
    model = tiny_world_model(window=4)
    sampler = CausalSampler(model, SamplerConfig(steps=2, commit=commit, window=window, sink=sink), 4)
    random = torch.Generator().manual_seed(1)
    chunks, noise = torch.randn(9, 2, LATENT_DIM, generator=random), torch.randn(9, 2, 4, 4, 4, generator=random)
    state = sampler.start(noise[0])
    zero, everything, last = torch.zeros(2, 1), [], noise[0]

    def shown():
        kept = everything[:sink] + everything[max(sink, len(everything) - (window - 1 - sink)) :]
        return [
            KeyValue(
                torch.cat([kv[block].key for kv in kept], dim=1), torch.cat([kv[block].value for kv in kept], dim=1)
            )
            for block in range(len(state.past))
        ]

    def run(latent, sigma, chunk, past, has_action):
        clean, own = model.dit(
            latent[:, None],
            zero + sigma,
            chunk[:, None],
            previous=last[:, None],
            past=past,
            has_action=zero + has_action,
        )
        return clean[:, 0], own

    everything.append(run(last, 0.0, chunks[0], None, 0.0)[1])
    for chunk, start in zip(chunks[1:], noise[1:], strict=True):
        state = sampler.step(state, chunk, start)
        x = start
        for sigma, following in zip(sampler.schedule[:-1].tolist(), sampler.schedule[1:].tolist(), strict=True):
            clean, own = run(x, sigma, chunk, shown(), 1.0)
            x = x + (following - sigma) * (x - clean) / sigma
        if commit == "extra_pass":
            own = run(clean, 0.0, chunk, shown(), 1.0)[1]
        everything.append(own)
        last = clean
        torch.testing.assert_close(state.last, clean, atol=1e-5, rtol=1e-4)
    assert state.num_frames == window - 1


@pytest.mark.parametrize(("commit", "passes"), [("extra_pass", 4), ("last_step", 3)])
def test_a_frame_costs_its_steps_and_the_pass_that_writes_the_cache_where_there_is_one(commit, passes):
    model, calls = tiny_world_model(), []
    sampler = CausalSampler(model, SamplerConfig(steps=3, commit=commit), 3)
    state = sampler.start(torch.zeros(1, 4, 4, 4))
    model.dit.register_forward_pre_hook(lambda *_: calls.append(None))
    sampler.step(state, torch.zeros(1, LATENT_DIM), torch.zeros(1, 4, 4, 4))
    assert len(calls) == passes


@pytest.mark.parametrize(
    ("settings", "words"), [({"window": 5}, "window of 3 frames, got 5"), ({"sink": 2}, "got sink=2, window=3")]
)
def test_a_cache_that_the_model_was_not_trained_for_is_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        CausalSampler(tiny_world_model(), SamplerConfig(steps=1, **settings), 3)


def test_what_changes_too_little_stays_and_what_is_beside_a_change_does_not():
    last = torch.zeros(1, 4, 5, 5)
    latent = torch.full_like(last, 0.1)
    latent[..., 0, 0] = 1.0
    kept = settled(last, latent, 0.2)
    moved = kept[0, 0] > 0
    assert moved[:2, :2].all() and moved.sum() == 4
    assert torch.equal(kept[..., :2, :2], latent[..., :2, :2])
    assert torch.equal(settled(last, latent, 0.0), latent)
    with pytest.raises(ConfigError, match="at least 0: got -1"):
        SamplerConfig(steps=1, still=-1)


def test_a_rollout_rests_where_its_sampler_says_so():
    model = tiny_world_model()
    start, chunk, noise = torch.zeros(1, 4, 4, 4), torch.zeros(1, LATENT_DIM), torch.randn(1, 4, 4, 4)
    frames = []
    for still in (0.0, 1e3):
        sampler = CausalSampler(model, SamplerConfig(steps=2, still=still), 3)
        frames.append(sampler.step(sampler.start(start), chunk, noise).last)
    assert not torch.equal(frames[0], start) and torch.equal(frames[1], start)
