"""An alignment finds what ties latent actions to a robot's actions, and says so where nothing does."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamdojo import cli
from dreamdojo.dataset.embodiment import Embodiment, Field
from dreamdojo.dojo.bodies import BODIES
from dreamdojo.dojo.control import CONTROL_MODES, embodiment_of
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.evaluation.alignment import alignment_report
from dreamdojo.evaluation.report import render
from dreamdojo.latent_action.align import Alignment, fit_alignment, hold_out, ridge_map, transfer_r2
from dreamdojo.latent_action.curve import AlignmentCurve, CurvePoint, alignment_curve
from dreamdojo.latent_action.pairs import first_seconds, needs_base, paired_episode
from dreamdojo.metrics import ExplainedVariance, Interval, explained_variance, fit_ridge
from dreamdojo.training.checkpoint import load_model, save_model
from tests.tiny import PUSHER

LATENT = 6


def limited(body):
    """Lowest and highest action and state of a body."""
    return [
        np.array([v for field in fields for v in getattr(field, end)], np.float32)
        for fields in (body.action, body.state)
        for end in ("low", "high")
    ]


def episodes(body, *, count=12, length=64, chunk=1, noise=0.02, bend=0.0, collapsed=False, seed=0):
    """Latent actions that tell what each action changes: a fixed linear map of it, bent by `bend`, with noise."""
    random = np.random.default_rng(seed)
    low, high, state_low, state_high = limited(body)
    mix = np.random.default_rng(99).normal(size=(body.action_dim, LATENT)) / np.sqrt(body.action_dim)
    out = []
    for _ in range(count):
        states = random.uniform(state_low, state_high, (length + 1, body.state_dim)).astype(np.float32)
        actions = random.uniform(low, high, (length, body.action_dim)).astype(np.float32)
        paired = paired_episode(body, np.zeros((length, LATENT), np.float32), actions, states, chunk=chunk)
        change = (paired.action - paired.base.repeat(1, chunk)).reshape(-1, body.action_dim).numpy()
        latent = change @ mix
        latent = latent + bend * np.roll(latent, 1, axis=-1) ** 2 + noise * random.normal(size=latent.shape)
        if collapsed:
            latent = 1e-3 * random.normal(size=latent.shape)
        out.append(paired_episode(body, latent.astype(np.float32), actions, states, chunk=chunk))
    return out


def split(data):
    train, held_out = hold_out(len(data))
    return [data[i] for i in train], [data[i] for i in held_out]


@pytest.mark.parametrize("kind", ["ridge", "mlp"])
@pytest.mark.parametrize("chunk", [1, 4])
def test_a_linear_tie_is_found_both_ways(kind, chunk):
    train, held_out = split(episodes(PUSHER, chunk=chunk))
    fit = fit_alignment(train, held_out, PUSHER, kind=kind, chunk=chunk)
    assert all(r2.low > 0.98 for r2 in fit.to_action.columns)
    assert fit.to_latent_action.mean.mean > 0.95
    there = fit.alignment.to_latent_action(held_out[0].action)
    torch.testing.assert_close(fit.alignment.to_action(there), held_out[0].action, atol=0.1, rtol=0)
    assert (fit.train_episodes, fit.held_out_episodes) == (8, 4)


def test_a_bent_tie_needs_the_mlp():
    train, held_out = split(episodes(PUSHER, count=24, noise=0.01, bend=0.7))
    scores = {
        kind: fit_alignment(train, held_out, PUSHER, kind=kind).to_latent_action.mean for kind in ("ridge", "mlp")
    }
    assert scores["mlp"].mean > 0.97
    assert scores["mlp"].low > scores["ridge"].high


def test_where_there_is_nothing_to_bend_the_mlp_keeps_the_ridge():
    train, held_out = split(episodes(PUSHER, noise=2.0))
    ridge, mlp = (fit_alignment(train, held_out, PUSHER, kind=kind).to_action.mean.mean for kind in ("ridge", "mlp"))
    assert mlp == pytest.approx(ridge, abs=0.03)


def test_an_action_that_the_latent_action_does_not_tell_is_named():
    told, untold = Interval(mean=0.9, low=0.8, high=1.0, count=9), Interval(mean=0.01, low=-0.1, high=0.1, count=9)
    r2 = ExplainedVariance(columns=(told, untold), mean=Interval(mean=0.5, low=0.4, high=0.6, count=9))
    points = tuple(CurvePoint(seconds=seconds, r2=r2) for seconds in (10.0, 20.0))
    text = AlignmentCurve(names=("velocity.x", "gripper.opening"), points=points).sufficiency().text
    assert text.startswith("Enough:") and text.endswith("The latent action does not tell gripper.opening.")


def test_with_noise_the_curve_rises_with_data_until_it_is_enough():
    train, held_out = split(episodes(PUSHER, count=60, noise=1.0))
    curve = alignment_curve(train, held_out, PUSHER, rate=10.0, kind="ridge", seconds=(2.0, 10.0, 60.0))
    means = [point.r2.mean.mean for point in curve.points]
    assert [round(point.seconds) for point in curve.points] == [2, 10, 60, 269]
    assert means[0] < means[-1] - 0.1 and means[-1] > means[1] - 0.01
    assert curve.points[0].r2.mean.low < curve.points[-1].r2.mean.low
    enough = curve.sufficiency()
    early = replace(curve, points=curve.points[:2]).sufficiency()
    assert enough.enough and enough.text.startswith("Enough:")
    assert not early.enough and early.gain > enough.gain and "still rising; twice as much" in early.text
    assert "does not tell" not in enough.text
    only = replace(curve, points=curve.points[-1:]).sufficiency()
    assert only.gain is None and only.text.startswith("Not known")


@pytest.mark.parametrize("kind", ["ridge", "mlp"])
def test_a_collapsed_latent_action_is_called_what_it_is(kind):
    train, held_out = split(episodes(PUSHER, count=40, collapsed=True))
    curve = alignment_curve(train, held_out, PUSHER, rate=10.0, kind=kind, seconds=(30.0, 60.0, 120.0))
    assert abs(curve.points[-1].r2.mean.mean) < 0.03
    enough = curve.sufficiency()
    assert not enough.enough and not enough.carried
    assert (
        "Not enough" in enough.text and "does not carry" in enough.text and "better latent action model" in enough.text
    )


@pytest.mark.parametrize("body", ["arm", "mobile_arm"])
@pytest.mark.parametrize("control", CONTROL_MODES)
def test_every_control_mode_is_aligned_and_commands_come_back_in_its_units(body, control):
    embodiment = embodiment_of(BODIES[body], control)
    data = episodes(embodiment, count=10, noise=0.0)
    train, held_out = split(data)
    fit = fit_alignment(train, held_out, embodiment, kind="ridge")
    assert fit.to_latent_action.mean.mean > 0.99
    _, _, state_low, state_high = limited(embodiment)
    state = (state_low + state_high) / 2
    commands = fit.alignment.commands(train[0].latent_action[:1].numpy(), state=state)
    assert commands.shape == (1, embodiment.action_dim) and np.isfinite(commands).all()
    assert np.abs(embodiment.normalize_action(fit.alignment.mean_commands(state=state))).max() < 2


def test_a_target_is_told_from_where_the_body_is_and_a_velocity_is_not():
    aims, moves = (embodiment_of(BODIES["arm"], control) for control in ("joint_position", "joint_velocity"))
    _, _, state_low, state_high = limited(aims)
    state = (state_low + state_high) / 2
    here = np.concatenate([state[aims.columns("joint_position", of="state")], [0.5]]).astype(np.float32)
    still = paired_episode(aims, np.zeros((3, LATENT), np.float32), np.tile(here, (3, 1)), np.tile(state, (4, 1)))
    torch.testing.assert_close(still.action, still.base, atol=1e-5, rtol=0)
    velocity = paired_episode(moves, np.zeros((3, LATENT)), np.zeros((3, 8), np.float32), np.tile(state, (4, 1)))
    assert velocity.base[:, :-1].abs().max() == 0 and needs_base(moves)  # the gripper's opening is a target
    assert not needs_base(PUSHER)
    with pytest.raises(DataError, match="joint_position, gripper_opening aims from"):
        paired_episode(aims, np.zeros((3, LATENT)), np.zeros((3, 8), np.float32), None)


def test_relative_bodies_start_from_the_last_action_before_the_chunk():
    body = replace(PUSHER, relative=True)
    actions = np.random.default_rng(0).uniform(-0.5, 0.5, (8, 2)).astype(np.float32)
    paired = paired_episode(body, np.zeros((8, LATENT)), actions, None, chunk=4)
    normal = body.normalize_action(actions)
    np.testing.assert_allclose(paired.base.numpy(), normal[[0, 3]], atol=1e-6)
    fit = fit_alignment(*split(episodes(body, count=8)), body, kind="ridge")
    latent = np.zeros((1, LATENT), np.float32)
    moved = fit.alignment.commands(latent, before=actions[1]) - fit.alignment.commands(latent, before=actions[0])
    np.testing.assert_allclose(moved[0], actions[1] - actions[0], atol=1e-5)
    with pytest.raises(ConfigError, match="expected the base"):
        fit.alignment.commands(latent)


def test_a_body_that_shares_columns_is_told_by_another_bodys_alignment():
    arm, mobile = (embodiment_of(BODIES[name], "end_effector_velocity") for name in ("arm", "mobile_arm"))
    data = episodes(arm, count=8, noise=0.0)
    alignment = fit_alignment(*split(data), arm, kind="ridge").alignment
    wider = [
        replace(
            each,
            action=torch.cat([each.action, torch.ones(64, 2)], 1),
            base=torch.cat([each.base, torch.zeros(64, 2)], 1),
        )
        for each in data
    ]
    told = transfer_r2(alignment, wider, mobile)
    assert list(told) == arm.action_names() and all(r2.mean > 0.99 for r2 in told.values())
    with pytest.raises(DataError, match="shares action columns"):
        transfer_r2(alignment, data, PUSHER)


def test_the_same_seed_gives_the_same_weights_and_the_files_load_again(tmp_path):
    train, held_out = split(episodes(PUSHER, bend=0.5))
    first, second = (fit_alignment(train, held_out, PUSHER, seed=3) for _ in range(2))
    for one, other in zip(first.alignment.state_dict().values(), second.alignment.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert first.to_action == second.to_action
    save_model(tmp_path, first.alignment)
    loaded = load_model(tmp_path, Alignment)
    assert loaded.config == first.alignment.config
    assert torch.equal(
        loaded.to_action(held_out[0].latent_action), first.alignment.to_action(held_out[0].latent_action)
    )
    json.dumps(first.to_json(), allow_nan=False)


def test_a_column_that_never_changes_has_no_r2_and_does_not_count():
    still = Field(name="light", axes=("on",), unit="1", low=(0.0,), high=(1.0,))
    body = replace(PUSHER, action=(*PUSHER.action, still))
    data = [
        replace(each, action=torch.cat([each.action, torch.ones(64, 1)], 1), base=torch.zeros(64, 3))
        for each in episodes(PUSHER)
    ]
    fit = fit_alignment(*split(data), body)
    assert np.isnan(fit.to_action.columns[-1].mean)
    assert fit.to_action.mean.mean > 0.98
    json.dumps(fit.to_json(), allow_nan=False)


def test_the_report_gives_the_answer_and_the_columns():
    train, held_out = split(episodes(PUSHER, count=20))
    fit = fit_alignment(train, held_out, PUSHER, kind="ridge")
    curve = alignment_curve(train, held_out, PUSHER, rate=10.0, kind="ridge")
    page = render(alignment_report(fit, curve, facts=("a fact",)))
    assert curve.sufficiency().text.split(",")[0] in page and "velocity.x" in page and "a fact" in page


def test_ridge_without_shrinking_is_least_squares_in_the_units_of_the_columns():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 20.0, 0.05]) + 4
    y = x @ torch.randn(3, 2, generator=generator, dtype=torch.float64) + 1
    ours, plain = ridge_map(x, y, torch.arange(300) // 30), fit_ridge(x, y, strength=0.0)
    torch.testing.assert_close(ours.predict(x), plain.predict(x), atol=1e-3, rtol=1e-3)
    assert ours.strengths == (1e-4, 1e-4)


def test_explained_variance_is_r2_with_whole_groups_drawn():
    truth = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    error = torch.full((4, 1), 0.25)
    found = explained_variance(error, truth, torch.tensor([0, 0, 1, 1]), seed=0)
    assert found.columns[0].mean == pytest.approx(1 - 1 / 5) == found.mean.mean
    assert found.columns[0].low <= found.columns[0].mean and found.columns[0].count == 2


def test_what_cannot_be_aligned_is_refused_with_a_reason():
    data = episodes(PUSHER, count=6)
    with pytest.raises(DataError, match="at least 3 episodes"):
        hold_out(2)
    with pytest.raises(DataError, match="at least 3 episodes"):
        fit_alignment(data[:1], data[1:2], PUSHER)
    with pytest.raises(DataError, match="two episodes to fit on"):
        fit_alignment(data[:1], data[1:], PUSHER)
    with pytest.raises(DataError, match="robot with actions"):
        fit_alignment(data[:4], data[4:], Embodiment(name="human"))
    with pytest.raises(DataError, match="with actions"):
        paired_episode(Embodiment(name="human"), np.zeros((3, LATENT)), np.zeros((3, 0)), None)
    broken = replace(data[0], latent_action=data[0].latent_action.clone().fill_(torch.nan))
    with pytest.raises(DataError, match="latent_action of episode 0"):
        fit_alignment([broken, *data[1:4]], data[4:], PUSHER)
    with pytest.raises(DataError, match="whole action chunks"):
        empty = paired_episode(PUSHER, np.zeros((2, LATENT)), np.zeros((2, 2), np.float32), None, chunk=4)
        fit_alignment([empty] * 3, [empty], PUSHER, chunk=4)


def test_the_command_needs_a_latent_action_model_and_a_robot(capsys, tmp_path):
    with pytest.raises(SystemExit):
        cli.main(["latent-action", "align", "nano", "--robot", str(tmp_path), "--run", str(tmp_path)])
    assert "DataError" in capsys.readouterr().err


def test_the_first_seconds_are_as_long_as_asked_for_and_end_within_an_episode():
    robot = episodes(PUSHER, count=3, length=64, chunk=2)
    taken = first_seconds(robot, 8.4, rate=10.0, chunk=2)
    assert [len(episode.action) for episode in taken] == [32, 10]
    assert torch.equal(taken[1].latent_action, robot[1].latent_action[:10]) and len(taken[1].base) == 10
    assert len(first_seconds(robot, 6.4, rate=10.0, chunk=2)) == 1
    assert sum(len(episode.action) for episode in first_seconds(robot, 1e3, rate=10.0, chunk=2)) == 96
