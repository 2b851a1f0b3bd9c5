"""A task to be learned in a dream: bring the gripper in front of the object that the first frame showed.

Everything is read off pictures by two small networks: where the gripper is now, and where the object was in the first
frame, the mark. A policy sees these four numbers and their difference and moves the hand across the table; its reward
is how far apart they are. The same eyes look at predicted and at true frames; only `reached` looks at the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dreamdojo.apps.policy_eval.truth import TrueWorld
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.evaluation.effector import EffectorProbe
from dreamdojo.evaluation.keypoints import LOCATE_BATCH, Located, locate
from dreamdojo.metrics import unit_range
from dreamdojo.policies.scripted import ObjectFinder
from dreamdojo.rollout.session import CAMERA
from dreamdojo.world import Observation

REACHED = 1 / 16
"""The gripper is there within this share of the picture's width: 4 of 64 pixels."""

Choose = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""What is seen, `b 6` -> how to move over the table, `b 2` in [-1, 1]: away from the body, and to its left."""


@dataclass(frozen=True)
class Sight:
    """What is made out in a picture, (u, v) in [0, 1]."""

    gripper: Float[Tensor, "b 2"]
    mark: Float[Tensor, "b 2"]
    """Where the object was in the episode's first frame."""

    @property
    def distance(self) -> Float[Tensor, " b"]:
        """Of the gripper from the mark, in widths of the picture."""
        return (self.gripper - self.mark).norm(dim=1)

    @property
    def features(self) -> np.ndarray:
        """`b 6` float32: both places in [-1, 1], and what is between them."""
        seen = torch.cat([2 * self.gripper - 1, 2 * self.mark - 1, 4 * (self.mark - self.gripper)], dim=1)
        return seen.numpy().astype(np.float32)


@dataclass(frozen=True)
class Eyes:
    """Two networks that look at frames."""

    effector: EffectorProbe
    objects: ObjectFinder

    def first(self, frames: UInt8[Tensor, "b 3 h w"]) -> Sight:
        """Of the first frames; what is not seen counts as in the middle."""
        middle = torch.full((len(frames), 2), 0.5)
        mark = locate(self.objects.net, (unit_range(part) for part in frames.split(LOCATE_BATCH)))
        return Sight(_where(self.effector.locate(frames), middle), _where(mark, middle))

    def next(self, before: Sight, frames: UInt8[Tensor, "b 3 h w"]) -> Sight:
        """Of later frames; a gripper that is not seen counts as where it was."""
        return Sight(_where(self.effector.locate(frames), before.gripper), before.mark)

    def follow(self, frames: UInt8[Tensor, "b t 3 h w"]) -> list[Sight]:
        """Of whole episodes, one sight for each time."""
        sights = [self.first(frames[:, 0])]
        for later in frames[:, 1:].unbind(1):
            sights.append(self.next(sights[-1], later))
        return sights


@dataclass(frozen=True, kw_only=True)
class Hand:
    """Two numbers as an action: the hand moves at its height, open and without turning."""

    embodiment: Embodiment
    gain: float = 0.6
    """Share of the declared range of velocities that is used."""

    def normal(self, moves: np.ndarray) -> np.ndarray:
        """Moves `b 2` -> normalised actions `b a`."""
        action = np.zeros((len(moves), self.embodiment.action_dim), np.float32)
        velocity = self.embodiment.columns("effector_velocity", of="action")
        action[:, velocity.start : velocity.start + 2] = self.gain * np.clip(moves, -1, 1)
        action[:, self.embodiment.columns("gripper_opening", of="action")] = 1.0
        return action


class Reaching(VectorWrapper):
    """The task in `dreamdojo/World-v0`'s vector form, for who calls `reset` between episodes."""

    def __init__(self, envs: VectorEnv[Any, Any, Any], eyes: Eyes, hand: Hand) -> None:
        super().__init__(envs)
        self._eyes, self._hand = eyes, hand
        self.single_observation_space = Box(-4, 4, (6,), np.float32)
        self.single_action_space = Box(-1, 1, (2,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, envs.num_envs)
        self.action_space = batch_space(self.single_action_space, envs.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin new episodes, each with a mark of its own."""
        seen, info = self.env.reset(seed=seed, options=options)
        self._sight = self._eyes.first(_frames(seen))
        return self._sight.features, info

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Move the hands; the reward is minus the distance from the mark, as the eyes see it."""
        seen, _, terminated, truncated, info = self.env.step(self._hand.normal(actions))
        self._sight = self._eyes.next(self._sight, _frames(seen))
        return self._sight.features, -self._sight.distance.double().numpy(), terminated, truncated, info


@dataclass
class Reacher:
    """A `Policy` that reaches, in any world with pictures."""

    eyes: Eyes
    hand: Hand
    choose: Choose
    k: int = 1
    """Actions of a step; all are alike."""
    _sight: Sight | None = field(default=None, init=False)
    _random: np.random.Generator = field(default_factory=np.random.default_rng, init=False)

    def reset(self, *, seed: int = 0) -> None:
        """Look for a new mark."""
        self._random, self._sight = np.random.default_rng(seed), None

    def act(self, observation: Observation) -> Tensor:
        """`k` actions for each world."""
        frames = observation.frames[CAMERA][:, -1].cpu()
        self._sight = self.eyes.first(frames) if self._sight is None else self.eyes.next(self._sight, frames)
        normal = self.hand.normal(self.choose(self._sight.features, self._random))
        actions = torch.from_numpy(self.hand.embodiment.denormalize_action(normal))
        return actions[:, None].repeat(1, self.k, 1)


def wander(seen: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Moves at random."""
    return random.uniform(-1, 1, (len(seen), 2)).astype(np.float32)


def aim(seen: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Straight to the mark, by who knows how the camera stands: up in the picture is away, right is right."""
    del random
    return (-2.0 * seen[:, [5, 4]]).clip(-1, 1)


def true_distance(world: TrueWorld) -> Float[Tensor, " b"]:
    """How far the gripper truly is from where the object stood, in the picture of a world that stands at the end."""
    found = []
    for scene, poses in zip(world.simulations, world.poses, strict=True):
        found.append(np.linalg.norm(scene.moment().effector_pixel - scene.pixel(poses[0, 0, :3])))
    return torch.tensor(np.array(found)).float()


def reached(distance: Float[Tensor, " b"]) -> Bool[Tensor, " b"]:
    """Success."""
    return distance <= REACHED


def _frames(seen: dict[str, np.ndarray]) -> UInt8[Tensor, "b 3 h w"]:
    return torch.from_numpy(seen["pixels"]).permute(0, 3, 1, 2)


def _where(located: Located, otherwise: Float[Tensor, "b 2"]) -> Float[Tensor, "b 2"]:
    return torch.where(located.found[:, None], located.position, otherwise)
