"""The dojo's errands as a planner sees them: where the object and its goal are, what to search, what it costs.

What a planner is told is what a calibrated camera shows in the first frame: which pixels are the object, where its goal
is, and that both stand on the table. Only `TrueErrand` looks further, and only a planner in the simulator can use it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dreamdojo.apps.planning.imagine import Imagined
from dreamdojo.apps.planning.objectives import ObjectGoal
from dreamdojo.apps.planning.space import PickPlace, Push, Stroke
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dojo.errands import LIFTED, ErrandTask
from dreamdojo.dojo.scene import FIRST_OBJECT
from dreamdojo.dojo.world import DojoWorld
from dreamdojo.errors import ConfigError
from dreamdojo.evaluation.effector import EffectorProbe
from dreamdojo.evaluation.objects import ObjectProbe
from dreamdojo.rollout.session import CAMERA
from dreamdojo.rollout.starts import fitted
from dreamdojo.video import Size, resize
from dreamdojo.world import Observation

BEHIND, BEFORE = 0.09, 0.02
"""A push begins so many metres behind the object, and ends so many before the goal: where the hand is by then."""

SEEN_HEIGHT = 0.02
"""Metres above the table at which the middle of what is seen of an object is taken to be."""


@dataclass(frozen=True, kw_only=True)
class Errand:
    """What is to be done, as the first frame shows it."""

    task: ErrandTask
    target: int
    """Number of the object, for who knows the truth."""
    start: UInt8[Tensor, "c h w"]
    """The frame."""
    mask: Bool[Tensor, "h w"]
    """The object's pixels in it."""
    goal: Float[Tensor, " 2"]
    """(u, v) in [0, 1] of the goal."""
    object_place: tuple[float, float]
    """Where the object's middle is on the table, metres, as far as its pixels tell."""
    goal_place: tuple[float, float]
    """Where the goal is, metres."""


def errand_of(world: DojoWorld, *, size: Size) -> Errand:
    """Of a world with a task that stands at the start of its errand; frames are looked at in `size`.

    Raises:
        ConfigError: if the world has no task, or its object cannot be seen.
    """
    trial, simulation = world.trials[0], world.simulations[0]
    picture = simulation.picture(128, segmentation=True)
    assert picture.segmentation is not None
    mask = resize(picture.segmentation[None], size, nearest=True)[0] == FIRST_OBJECT + trial.errand.target
    if not mask.any():
        raise ConfigError(f"scene {simulation.layout.seed}: the object of its errand is not in view; choose another")
    v, u = (np.argwhere(mask).mean(axis=0) + 0.5) / mask.shape
    place = simulation.on_plane(np.array([u, v]), SEEN_HEIGHT)
    goal = np.array([*trial.errand.goal, 0.0])
    return Errand(
        task=trial.task,
        target=trial.errand.target,
        start=torch.from_numpy(resize(picture.rgb[None], size)[0]).permute(2, 0, 1),
        mask=torch.from_numpy(mask),
        goal=torch.from_numpy(simulation.pixel(goal)).float(),
        object_place=(float(place[0]), float(place[1])),
        goal_place=trial.errand.goal,
    )


def goal_picture(world: DojoWorld, *, size: Size) -> UInt8[Tensor, "c h w"]:
    """How the scene would look with the object at its goal and the body where it is now."""
    simulation, errand = world.simulations[0].fork(), world.trials[0].errand
    simulation.put_object(errand.target, errand.goal)
    return torch.from_numpy(resize(simulation.picture(128).rgb[None], size)[0]).permute(2, 0, 1)


def stroke_for(
    errand: Errand, place: tuple[float, float], embodiment: Embodiment, *, fps: float, spread: float = 0.025
) -> Stroke:
    """Where to search while the object stands at `place` (metres), `spread` metres wide."""
    (x, y), (to_x, to_y) = place, errand.goal_place
    if errand.task == "pick_place":
        centre, spreads = (x, y, 0.03, 0.0, to_x, to_y), (spread, spread, 0.012, 1.0, spread / 2, spread / 2)
        return PickPlace(embodiment=embodiment, fps=fps, centre=centre, spread=spreads)
    away = np.array([to_x - x, to_y - y])
    along = away / max(float(np.linalg.norm(away)), 1e-6)
    begin, end = np.array([x, y]) - BEHIND * along, np.array([to_x, to_y]) - BEFORE * along
    return Push(embodiment=embodiment, fps=fps, centre=(*begin, *end), spread=(spread,) * 4)


def true_aim(errand: Errand, world: DojoWorld) -> Callable[[Observation], Stroke]:
    """Search around where the object truly is."""

    def aim(observation: Observation) -> Stroke:
        del observation
        x, y, *_ = world.trials[0].target_pose()
        return stroke_for(errand, (float(x), float(y)), world.embodiment, fps=world.fps)

    return aim


def seen_aim(errand: Errand, objects: ObjectProbe, world: DojoWorld) -> Callable[[Observation], Stroke]:
    """Search around where the probe sees the object on the table, or where it last did; the camera is calibrated."""
    place, size = errand.object_place, errand.start.shape[-2:]

    def aim(observation: Observation) -> Stroke:
        nonlocal place
        if observation.frames[CAMERA].shape[1] > 1:  # later than the first frame, in which it is marked
            frame = fitted(observation, (size[0], size[1])).frames[CAMERA][:1, -1]
            located = objects.locate(errand.start[None], errand.mask[None], frame)
            if located.found[0]:
                x, y, _ = world.simulations[0].on_plane(located.position[0].double().numpy(), SEEN_HEIGHT)
                place = (float(x), float(y))
        return stroke_for(errand, place, world.embodiment, fps=world.fps)

    return aim


def seen_errand(errand: Errand, effector: EffectorProbe, objects: ObjectProbe) -> ObjectGoal:
    """The errand's cost as probes see it, in any world with pictures."""
    return ObjectGoal(objects=objects, effector=effector, start=errand.start, mask=errand.mask, goal=errand.goal)


@dataclass(frozen=True, kw_only=True)
class TrueErrand:
    """The errand's cost in metres by the truth: distance at the end, and what has to happen on the way."""

    errand: Errand
    reach: float = 0.3
    """Weight of the hand's least distance from the object."""
    carry: float = 1.0
    """Weight of what is missing to the height that counts as lifted (pick-place)."""
    let_go: float = 0.05
    """Cost of still touching the object at the end (pick-place)."""

    def __call__(self, imagined: Imagined) -> Float[Tensor, " n"]:
        """Costs.

        Raises:
            ConfigError: if the world does not know the truth.
        """
        truth = imagined.truth
        if truth is None:
            raise ConfigError("the true cost of an errand is known in the simulator only; use seen_errand in a dream")
        target = truth.objects[:, :, self.errand.target]
        place = target.new_tensor(self.errand.goal_place)
        cost = (target[:, -1, :2] - place).norm(dim=-1)
        cost = cost + self.reach * (truth.effector - target).norm(dim=-1).amin(dim=1)
        if self.errand.task == "pick_place":
            rise = (target[:, :, 2] - target[:, :1, 2]).amax(dim=1)
            cost = cost + self.carry * (LIFTED + 0.005 - rise).clamp(min=0)
            cost = cost + self.let_go * truth.touched[:, -1, self.errand.target]
        return cost
