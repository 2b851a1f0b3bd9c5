"""Depth on the page of `dreamdojo play`."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamdojo.apps.play import PlayWorld
from dreamdojo.apps.play.command import dojo_starts
from dreamdojo.errors import ConfigError
from dreamdojo.tokenizer.depth import DepthCoding
from dreamdojo.video import colour_depth
from tests.apps.playing import Page, Square, serving

SPAN = (0.2, 3.0)


class Deep(Square):
    """The square is nearer than what is behind it."""

    def reset(self, observation=None, *, seed=0):
        return self._deep(super().reset(observation, seed=seed))

    def step(self, actions):
        return self._deep(super().step(actions))

    def _deep(self, seen):
        bright = seen.frames["head"].float().mean(dim=2, keepdim=True) > 100
        return replace(seen, depth={"head": torch.where(bright, 0.5, 1.5)})


def worlds(world=Deep):
    return {"dream": PlayWorld(world=world(), from_observation=True, label="Dream", depth_span=SPAN)}


def test_depth_is_a_picture_of_its_own_in_the_colours_of_the_span():
    with serving(worlds()) as url, Page(url) as page:
        hello = page.hello["worlds"][0]
        assert hello["cameras"] == ["head", "head depth"] and hello["depth"] == 1
        header = page.frame()
        assert [picture["camera"] for picture in header["views"][0]["pictures"]] == ["head", "head depth"]
        rgb, coloured = header["images"]
        metres = np.where(rgb.mean(axis=2) > 100, 0.5, 1.5)
        np.testing.assert_array_equal(coloured, colour_depth(metres, *SPAN))


def test_a_world_that_gives_no_depth_says_so_on_the_page():
    with serving(worlds(Square)) as url, Page(url) as page:
        assert "gave none" in page.session_with(state="failed")["failure"]


def test_a_span_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="0 < near < far"):
        PlayWorld(world=Square(), from_observation=True, label="Dream", depth_span=(3.0, 0.2))


def test_dojo_scenes_carry_depth_and_the_dojo_shows_it():
    starts, dojo = dojo_starts(64, 1, DepthCoding(near=0.2, far=3.0))
    depth = starts[0].observation.depth["head"]
    assert depth.shape == (1, 1, 1, 64, 64) and 0.2 < depth.min() < depth.max() < 3.0
    assert dojo.depth_span == SPAN and dojo.world.reset(seed=starts[0].seed).depth is not None
    dojo.world.close()
