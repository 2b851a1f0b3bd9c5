"""Models whose health is known are given the verdict they deserve, and every number its known value."""

import dataclasses
import json
import math

import pytest
import torch

from dreamdojo.errors import DataError
from dreamdojo.evaluation.health import (
    Pairs,
    Targets,
    Thresholds,
    Transfer,
    default_data_sheet,
    examine,
    fit_mlp,
    health_report,
    judge_health,
    make_pairs,
    measure_decoding,
    measure_response,
    measure_spread,
    measure_utilisation,
    probe_motion,
    read_elsewhere,
    transfer_probe,
)
from dreamdojo.evaluation.health.looks import agreement, carry, difference, nearest, restless
from dreamdojo.evaluation.health.response import in_another_light, seen_from_aside, still_latents
from dreamdojo.evaluation.health.spread import effective_rank
from dreamdojo.evaluation.linear_probe import probe_episodes
from dreamdojo.evaluation.report import render
from dreamdojo.metrics import Interval
from tests.evaluation.blobs import NAMES, Collapsed, Deaf, Half, Leaky, Mute, Perfect, Shy, blob_pairs, draw, find
from tests.evaluation.test_report import parsed


def measured(model, **settings):
    return examine(
        model, blob_pairs(model), oracle_pairs=24, oracle_steps=40, permutations=4, clip_frames=6, **settings
    )


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def a_set(mean, log_variance=-6.0, episodes=6):
    """Latent actions given directly, of pictures that do not matter."""
    count = len(mean) // episodes
    frames = tuple(torch.zeros(count + 1, 3, 8, 8, dtype=torch.uint8) for _ in range(episodes))
    return Pairs(
        name="given",
        frames=frames,
        episode=torch.arange(episodes).repeat_interleave(count),
        start=torch.arange(count).repeat(episodes),
        mean=mean,
        log_variance=torch.full_like(mean, log_variance),
    )


# the verdict


def test_a_perfect_model_is_healthy_with_and_without_ground_truth():
    health = measured(Perfect())
    verdict = judge_health(health)
    assert verdict.state == "Healthy" and not verdict.cautions
    assert health.degrees_of_freedom == 4 and verdict.text.startswith("Healthy: every bar that could be measured")
    blind = examine(Perfect(), blob_pairs(Perfect(), known=False), oracle_pairs=24, oracle_steps=20, clip_frames=4)
    verdict = judge_health(blind)
    assert verdict.state == "Healthy" and "Planar motion" in verdict.text.partition("Not judged:")[2]


def test_a_collapsed_model_is_called_so_with_and_without_ground_truth():
    for known in (True, False):
        pairs = blob_pairs(Collapsed(), known=known)
        health = examine(Collapsed(), pairs, oracle_pairs=12, oracle_steps=5, permutations=2, clip_frames=4)
        verdict = judge_health(health)
        assert verdict.state == "Collapsed" and "all pairs have the same latent action" in verdict.text
        assert ("better than by chance" in verdict.text) == known


def test_a_decoder_that_does_not_listen_is_collapsed_however_good_the_encoder():
    health = measured(Deaf())
    verdict = judge_health(health)
    assert verdict.state == "Collapsed" and "ignores its latent action" in verdict.text
    assert health.human.motion is not None and health.human.motion.above_chance == NAMES


def test_a_model_that_tells_the_picture_is_leaky_without_ground_truth():
    health = examine(Leaky(), blob_pairs(Leaky(), known=False), oracle_pairs=12, oracle_steps=10, clip_frames=4)
    verdict = judge_health(health)
    assert verdict.state == "Leaky" and "healthy up to 0.3, leaky from 0.6" in verdict.text
    assert health.human.decoding.own_minus_other.above_zero  # it draws very well all the same


def test_a_model_that_tells_one_direction_of_four_is_weak_and_the_reasons_say_where():
    verdict = judge_health(measured(Shy()))
    assert verdict.state == "Weak"
    outcome = {check.name: check.outcome for check in verdict.checks}
    assert outcome["Height (z)"] == outcome["Effective rank"] == "weak"
    assert "effective rank 1.0 is below the 4 true degrees of freedom" in verdict.text
    assert "Also missed" not in verdict.text


def test_bars_can_be_moved():
    health = measured(Perfect())
    strict = judge_health(health, Thresholds(planar_r2=1.01))
    assert strict.state == "Weak" and "healthy from 1.01" in strict.text


# the probes


def test_true_motion_is_read_in_full_and_nothing_is_read_where_nothing_moves():
    model = Perfect()
    pairs = blob_pairs(model)
    assert pairs.motion is not None
    rows = pairs.evenly(100)
    probes = probe_motion(pairs, pairs.motion, still_latents(model, pairs, rows), rows, seed=0, permutations=4)
    for linear, mlp in zip(probes.linear.dimensions, probes.mlp.dimensions, strict=True):
        assert linear.r2.mean > 0.97 and linear.null_high < 0.5
        assert mlp.r2.mean > 0.85
    assert all(control.share < 0.05 for control in probes.still.values())


def test_positions_are_not_motion():
    pairs = blob_pairs(Leaky())
    assert pairs.motion is not None
    probe = probe_episodes(pairs.mean, pairs.motion.values, pairs.episode, names=NAMES, seed=0, permutations=1).probe
    assert all(dimension.r2.mean < 0.5 for dimension in probe.dimensions)


def test_the_network_reads_what_no_line_can():
    x = noise(600, 2)
    y = (x[:, :1] * x[:, 1:]).double()
    episodes = torch.arange(20).repeat_interleave(30)
    linear = probe_episodes(x, y, episodes, names=("product",), seed=0, permutations=1).probe
    mlp = probe_episodes(x, y, episodes, names=("product",), seed=0, permutations=1, fit=fit_mlp).probe
    assert linear.dimensions[0].r2.mean < 0.2 and mlp.dimensions[0].r2.mean > 0.8
    assert mlp.dimensions[0].strength is None and linear.dimensions[0].strength is not None


def test_a_quantity_that_never_changes_is_left_out():
    pairs = blob_pairs(Perfect())
    assert pairs.motion is not None
    constant = Targets(names=(*NAMES, "yaw"), values=torch.cat([pairs.motion.values, torch.ones(len(pairs), 1)], dim=1))
    assert constant.varying().names == NAMES


# from body to body


def test_a_line_crosses_between_bodies_that_mean_the_same():
    human, robot = blob_pairs(Perfect()), blob_pairs(Perfect(), "robot", seed=9, motion_scale=0.6)
    transfer = transfer_probe(human, robot, seed=0)
    assert transfer is not None and max(transfer.drop.values()) < 0.05


def test_what_has_no_r2_is_no_loss():
    unknown, known = (Interval(mean=x, low=x, high=x, count=3) for x in (math.nan, 0.5))
    found = Transfer(
        source="a", target="b", standardised=False, r2={"x": unknown, "y": known}, own={"x": known, "y": known}
    )
    assert found.drop == {"y": 0.0} and json.dumps(found.to_json(), allow_nan=False)


def test_an_offset_between_bodies_is_mended_by_standardising_and_a_mirror_is_not():
    human, robot = blob_pairs(Perfect()), blob_pairs(Perfect(), "robot", seed=9)
    offset = dataclasses.replace(robot, mean=robot.mean + 5)
    plain, standardised = (transfer_probe(human, offset, seed=0, standardised=s) for s in (False, True))
    assert plain is not None and standardised is not None
    assert min(plain.drop.values()) > 1 and max(standardised.drop.values()) < 0.1
    mirrored = transfer_probe(human, dataclasses.replace(robot, mean=-robot.mean), seed=0, standardised=True)
    assert mirrored is not None and min(mirrored.drop.values()) > 1


def test_the_line_of_home_is_read_elsewhere_and_unknown_motion_has_no_transfer():
    home, away = blob_pairs(Perfect()), blob_pairs(Perfect(), "away", seed=5)
    read = read_elsewhere(home, away, seed=0)
    assert read is not None and max(read.drop.values()) < 0.05
    assert read_elsewhere(home, blob_pairs(Perfect(), known=False), seed=0) is None


# the decoder


def test_own_latent_actions_draw_better_than_anothers_and_zero_repeats_the_frame():
    model = Perfect()
    pairs = blob_pairs(model)
    decoding = measure_decoding(model, pairs, pairs.evenly(120))
    assert decoding.own.mean > 40 and decoding.own_minus_other.low > 5
    assert decoding.zero.mean == pytest.approx(decoding.copy.mean, abs=0.3)


def test_a_decoder_that_ignores_its_latent_action_gains_nothing():
    pairs = blob_pairs(Deaf())
    decoding = measure_decoding(Deaf(), pairs, pairs.evenly(120))
    assert decoding.own_minus_other.mean == decoding.own_minus_zero.mean == 0
    use = measure_utilisation(Deaf(), pairs, pairs.evenly(20), steps=5, seed=0)
    assert math.isnan(use.share.mean) and use.gain == pytest.approx(0)


def test_utilisation_is_one_for_the_perfect_none_for_the_mute_and_between_for_half():
    shares = {}
    for model in (Perfect(), Half(), Mute()):
        pairs = blob_pairs(model)
        use = measure_utilisation(model, pairs, pairs.evenly(24), steps=80, seed=0)
        assert use.oracle <= use.inferred + 1e-9 and use.oracle <= min(use.from_inferred, use.from_zero) + 1e-9
        shares[type(model)] = use.share.mean
    assert shares[Perfect] > 0.97 and shares[Mute] == pytest.approx(0, abs=1e-6)
    assert 0.3 < shares[Half] < 0.95


# the space


def test_equal_directions_count_as_many_as_they_are_and_constant_ones_as_none():
    assert effective_rank(torch.tensor([0.25] * 4)) == pytest.approx(4)
    assert effective_rank(torch.tensor([1.0, 0.0])) == pytest.approx(1)
    three = torch.cat([noise(6000, 3), torch.zeros(6000, 5)], dim=1)
    assert measure_spread(a_set(three)).effective_rank == pytest.approx(3, abs=0.05)
    assert measure_spread(a_set(torch.ones(60, 4))).effective_rank == 0


def test_a_dimension_is_active_above_its_own_noise_at_any_scale():
    mean = torch.stack([noise(600), 1e-3 * noise(600, seed=1), torch.zeros(600)], dim=1)
    assert measure_spread(a_set(mean, log_variance=-16.0)).active == 2
    assert measure_spread(a_set(mean, log_variance=0.0)).active == 1


def test_kl_is_that_of_a_standard_normal():
    spread = measure_spread(a_set(torch.full((60, 2), 2.0), log_variance=0.0))
    assert [kl.mean for kl in spread.kl] == pytest.approx([2.0, 2.0])  # mean^2 / 2


# what else moves it


def test_the_perfect_model_answers_to_motion_and_not_to_light_stillness_or_the_camera():
    model = Perfect()
    pairs = blob_pairs(model)
    rows = pairs.evenly(100)
    response = measure_response(model, pairs, rows, still_latents(model, pairs, rows), seed=0)
    assert response.motion.mean > 0.5
    assert response.still.mean < 1e-3 and response.relative("light") < 0.1 and response.relative("camera") < 0.3


def test_the_leaky_model_answers_to_stillness():
    model = Leaky()
    pairs = blob_pairs(model)
    rows = pairs.evenly(100)
    assert measure_response(model, pairs, rows, still_latents(model, pairs, rows), seed=0).still.mean > 0.6


def test_light_changes_colours_only_and_a_moved_camera_moves_everything():
    picture = draw(torch.tensor([[[9.0, 12.0], [12.0, 9.0], [14.0, 14.0]]]))
    generator = torch.Generator().manual_seed(0)
    torch.testing.assert_close(find(in_another_light(picture, generator)), find(picture), atol=0.05, rtol=0)
    moved = find(seen_from_aside(picture, generator)) - find(picture)
    assert (moved.abs() > 0.3).all() and moved.sign().unique(dim=1).shape[1] == 1


# what can be looked at


def test_the_nearest_pairs_move_alike_and_are_of_other_episodes():
    pairs = blob_pairs(Perfect())
    assert pairs.motion is not None
    row = int(restless(pairs, 3)[1])
    found = nearest(pairs, row, count=4)
    episodes = pairs.episode[list(found.rows)].tolist()
    assert len(set(episodes)) == 4 and pairs.episode[row] not in episodes
    assert list(found.cosines) == sorted(found.cosines, reverse=True)
    cosines = torch.nn.functional.cosine_similarity(
        pairs.motion.values[list(found.rows)], pairs.motion.values[row], dim=1
    )
    assert cosines.min() > 0.7
    near, middle = agreement(pairs, pairs.evenly(50)) or (0.0, 0.0)
    assert near > 0.8 > 0.3 > abs(middle)
    assert agreement(blob_pairs(Perfect(), known=False), pairs.evenly(5)) is None


def test_motion_carried_to_another_scene_moves_it_as_it_moved_at_home():
    model = Perfect()
    human, robot = blob_pairs(model), blob_pairs(model, "robot", seed=3)
    carried = carry(model, human, robot, episode=2, onto=1, length=3)
    here, there = (find(frames.float() / 255)[:, :2] for frames in (carried.source, carried.carried))
    torch.testing.assert_close(there.diff(dim=0), here.diff(dim=0), atol=0.1, rtol=0)
    assert torch.equal(carried.carried[0], carried.scene[0])
    assert (carried.redrawn.float() - carried.scene.float()).abs().mean() < 1


def test_no_change_is_grey():
    frames = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    assert (difference(frames, frames) == 128).all()


# gathering, the page, the command


def test_too_little_or_unequal_data_is_refused():
    frames = torch.zeros(4, 3, 24, 24, dtype=torch.uint8)
    with pytest.raises(DataError, match="at least 2 episodes"):
        make_pairs("human", [frames], Perfect())
    with pytest.raises(DataError, match="expected one row of x for each of 6 pairs, got 5"):
        make_pairs("human", [frames, frames], Perfect(), motion=Targets(names=("x",), values=torch.zeros(5, 1)))


def test_every_latent_action_returns_to_its_own_episode_and_time():
    model = Perfect()
    pairs = blob_pairs(model, count=3)
    for row in (0, 17, len(pairs) - 1):
        own = model.encode(pairs.pictures(torch.tensor([row]))).mean[:, 0]
        torch.testing.assert_close(pairs.mean[row : row + 1], own)


def test_the_page_holds_every_section_for_every_kind_of_model():
    for model, known in ((Perfect(), True), (Collapsed(), False)):
        robot, away = (blob_pairs(model, name, seed=4, known=known) for name in ("robot", "away"))
        actions = Targets(names=("velocity.x",), values=noise(len(robot), 1))
        health = examine(
            model,
            blob_pairs(model, known=known),
            robot=dataclasses.replace(robot, actions=actions),
            ood=[away],
            oracle_pairs=12,
            oracle_steps=4,
            permutations=2,
            clip_frames=4,
        )
        verdict = judge_health(health)
        sheet = default_data_sheet(health, Thresholds())
        page = parsed(render(health_report(health, verdict, title="t", facts=(), data_sheet=sheet, rate=10)))
        words = " ".join(page.text)
        assert {"verdict", "nearest-neighbours", "motion-carried-to-another-scene"} <= set(page.ids)
        assert verdict.text in words and "velocity.x" in words
        assert ("ground_truth.parquet" in words) == (not known)
        plain = json.dumps({"verdict": verdict.to_json(), **health.to_json()}, allow_nan=False)
        assert json.loads(plain)["verdict"]["state"] == verdict.state
