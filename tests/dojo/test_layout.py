from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest

from dreamdojo.dojo.appearance import HELD_OUT_HUES, HUES
from dreamdojo.dojo.bodies import BODIES
from dreamdojo.dojo.difficulty import CLUTTER, GENTLE, Difficulty, find_difficulty
from dreamdojo.dojo.layout import draw_layout
from dreamdojo.dojo.objects import HELD_OUT_SHAPES, MAX_PARTS, TRAIN_SHAPES
from dreamdojo.dojo.splits import SPLITS, seed_of
from dreamdojo.errors import ConfigError

ARM, HUMAN = BODIES["arm"], BODIES["human"]


def layouts(split, count=60, difficulty=GENTLE):
    return [draw_layout(seed_of(split, index), difficulty, ARM) for index in range(count)]


def shape_names(split):
    return {placed.shape.name for layout in layouts(split) for placed in layout.objects}


def test_held_out_shapes_appear_in_their_split_and_in_no_other():
    assert shape_names("ood_shape") == set(HELD_OUT_SHAPES)
    for split in set(SPLITS) - {"ood_shape"}:
        assert shape_names(split) <= set(TRAIN_SHAPES)
    assert shape_names("train") == set(TRAIN_SHAPES)


def test_held_out_colours_are_far_from_every_colour_of_training():
    def hues(split):
        colours = (placed.colour for layout in layouts(split) for placed in layout.objects)
        return np.array([colorsys.rgb_to_hsv(*colour)[0] for colour in colours])

    apart = np.abs((hues("train")[:, None] - hues("ood_colour")[None] + 0.5) % 1 - 0.5)
    assert apart.min() > 0.03
    assert not set(HUES) & set(HELD_OUT_HUES)


def test_only_the_lighting_split_has_a_low_lamp():
    for split in SPLITS:
        lamps = [layout.look.lighting.direction for layout in layouts(split, 5)]
        assert {math.hypot(x, y) > -z for x, y, z in lamps} == {split == "ood_lighting"}


def test_objects_touch_or_stand_on_each_other_in_the_layout_split_only():
    def closest(split):
        gaps = []
        for layout in layouts(split):
            spots = [(placed.position, placed.shape.footprint) for placed in layout.objects]
            gaps += [
                math.dist(first[:2], second[:2]) - near - far
                for number, (first, near) in enumerate(spots)
                for second, far in spots[:number]
            ]
        return np.array(gaps)

    assert closest("train").min() > GENTLE.gap - 1e-9
    assert closest("ood_layout").min() < 0.003


def test_the_same_seed_gives_both_bodies_the_same_objects():
    for first, second in zip(layouts("train", 5), [draw_layout(i, GENTLE, HUMAN) for i in range(5)], strict=True):
        assert first.objects == second.objects


def test_difficulty_sets_how_many_objects_there_are():
    assert {len(layout.objects) for layout in layouts("train")} == {1, 2, 3}
    assert {len(layout.objects) for layout in layouts("train", 40, CLUTTER)} == {5, 6, 7, 8}


@pytest.mark.parametrize("makers", [TRAIN_SHAPES, HELD_OUT_SHAPES])
def test_every_shape_can_be_held_by_the_robot_and_stays_within_its_footprint(makers):
    for name, make in makers.items():
        for seed in range(5):
            shape = make(np.random.default_rng(seed))
            assert shape.name == name
            assert len(shape.parts) <= MAX_PARTS
            assert any(ARM.can_take(grasp.width, edge=grasp.edge) for grasp in shape.grasps)
            for grasp in shape.grasps:
                assert math.hypot(*grasp.position[:2]) <= shape.footprint


def test_an_impossible_difficulty_is_refused():
    with pytest.raises(ConfigError, match="gentle, normal, clutter"):
        find_difficulty("hard")
    with pytest.raises(ConfigError, match="fewest"):
        Difficulty(**{**vars(GENTLE), "objects": (3, 1)})
