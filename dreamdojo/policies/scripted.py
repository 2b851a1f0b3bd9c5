"""A scripted policy that sees: it finds the object in the frame, goes behind it and pushes it away.

The dojo's own actors read the true state, which no dream has. This one needs what any world shows: a frame, and where
the hand is. A small network (`ObjectFinder`) says where the object stands on the table; noise in its aim, its hand and
its judgement of distance make it as bad as one likes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.evaluation.keypoints import HeatmapNet, degraded, locate, photometric, train_keypoints
from dreamdojo.metrics import fit_ridge, unit_range
from dreamdojo.rollout.session import CAMERA
from dreamdojo.training.checkpoint import load_model, save_model
from dreamdojo.training.progress import Report, silent
from dreamdojo.world import Observation

_ARRIVED = 0.015
"""A place in space is reached within so many metres."""
_BEHIND, _ABOVE, _LOW = 0.1, 0.13, 0.025
"""Where the hand goes down: so far on the body's side of the object, from that height to that one; metres."""


@dataclass(frozen=True, kw_only=True)
class FinderConfig:
    """A network that finds the one object on the table."""

    width: int = 16
    """Channels at half size."""


class ObjectFinder(nn.Module):
    """Frame -> where the object stands on the table, metres."""

    to_table: Tensor

    def __init__(self, config: FinderConfig) -> None:
        super().__init__()
        self.config = config
        self.net = HeatmapNet(3, width=config.width)
        self.register_buffer("to_table", torch.zeros(6, 2))

    def find(self, frames: UInt8[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b 2"], Bool[Tensor, " b"]]:
        """Place `x y` on the table, and whether it is seen at all."""
        seen = locate(self.net, [unit_range(frames)])
        return _bent(seen.position) @ self.to_table.cpu(), seen.found


def train_finder(
    frames: UInt8[Tensor, "n 3 h w"],
    pixels: Float[Tensor, "n 2"],
    places: Float[Tensor, "n 2"],
    folder: Path,
    *,
    config: FinderConfig | None = None,
    steps: int = 400,
    seed: int = 0,
    report: Report = silent,
) -> ObjectFinder:
    """Learn to find the object in real frames, and what place on the table a pixel is; a finished one is loaded.

    Args:
        frames: of scenes with one object.
        pixels: (u, v) in [0, 1] of the object in each.
        places: (x, y) on the table in metres.
        folder: where it is kept.
        config: the network.
        steps: optimizer steps of 32 frames.
        seed: of its start and of the order of training.
        report: progress, in steps.

    Raises:
        DataError: if there are no frames.
    """
    if (folder / "model.safetensors").exists():
        return load_model(folder, ObjectFinder)
    if not len(frames):
        raise DataError("the object finder needs frames to learn from, got none")
    finder = ObjectFinder(config or FinderConfig())
    seen = ((pixels > 0) & (pixels < 1)).all(dim=1)

    def sample(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.randint(len(frames), (32,), generator=generator)
        pictures = degraded(photometric(unit_range(frames[rows]), generator), generator)
        return pictures, pixels[rows], seen[rows]

    finder.net = train_keypoints(
        lambda: HeatmapNet(3, width=finder.config.width),
        sample,
        steps=steps,
        learning_rate=4e-3,
        seed=seed,
        device="cpu",
        report=report,
    )
    line = fit_ridge(_bent(pixels[seen])[:, 1:], places[seen], strength=1e-6)
    finder.to_table = torch.cat([line.bias[None], line.weight]).float()
    save_model(folder, finder, about={"frames": len(frames), "steps": steps, "seed": seed})
    return finder.eval()


@dataclass(frozen=True, kw_only=True)
class ScriptedPushConfig:
    """How well it pushes."""

    speed: float = 0.22
    """Of the hand, m/s."""
    aim_error: float = 0.0
    """Standard deviation of where it believes the object to stand, drawn once per episode, metres."""
    tremor: float = 0.0
    """Standard deviation of the noise in the hand's velocity, m/s."""
    reach: float = 0.1
    """How far past the object's centre it pushes, metres; less than a few centimetres and it stops too early."""


class ScriptedPush:
    """Above, down, and through: a policy that is told nothing but frames and where its hand is."""

    def __init__(self, finder: ObjectFinder, embodiment: Embodiment, config: ScriptedPushConfig) -> None:
        """Prepare to act.

        Raises:
            ConfigError: if the body is not moved by the velocity of its effector.
        """
        self._finder, self._embodiment, self.config = finder.eval(), embodiment, config
        self._velocity = embodiment.columns("effector_velocity", of="action")
        self._hand = embodiment.columns("effector_position", of="state")
        if (self._velocity.stop - self._velocity.start, self._hand.stop - self._hand.start) != (3, 3):
            raise ConfigError(f"{embodiment.name}: expected an effector moved in x, y and z")
        self.reset()

    def reset(self, *, seed: int = 0) -> None:
        """Forget the last episode."""
        self._random = np.random.default_rng([seed, 2])
        self._phase: np.ndarray | None = None

    def act(self, observation: Observation) -> Tensor:
        """One action for each world.

        Raises:
            DataError: if the world does not say where the hand is.
        """
        if observation.state is None:
            raise DataError("the scripted policy needs to know where its hand is: expected Observation.state, got None")
        hand = observation.state[:, -1, self._hand].cpu().numpy()
        place, found = self._finder.find(observation.frames[CAMERA][:, -1].cpu())
        if self._phase is None:
            self._phase = np.zeros(len(hand), dtype=int)
            self._place = place.numpy()
            self._error = self._random.normal(0, self.config.aim_error, self._place.shape)
        looking = (self._phase < 2) & found.numpy()  # once it pushes, the object moves
        self._place = np.where(looking[:, None], place.numpy(), self._place)
        waypoints = self._waypoints()
        goal = waypoints[np.arange(len(hand)), np.minimum(self._phase, 2)]
        away = goal - hand
        distance = np.linalg.norm(away, axis=1, keepdims=True)
        moving = (self._phase < 3)[:, None]
        velocity = moving * away * np.minimum(10.0, self.config.speed / np.maximum(distance, 1e-9))
        velocity = velocity + moving * self._random.normal(0, self.config.tremor, velocity.shape)
        self._phase = self._phase + ((distance[:, 0] < _ARRIVED) & (self._phase < 3))
        return self._commands(velocity)

    def _waypoints(self) -> np.ndarray:
        """`b 3 3`: above the start, the start, and the end of the push."""
        place = self._place + self._error
        behind, through = place - np.array([_BEHIND, 0]), place + np.array([self.config.reach, 0])

        def at(where: np.ndarray, height: float) -> np.ndarray:
            return np.concatenate([where, np.full((len(where), 1), height)], axis=1)

        return np.stack([at(behind, _ABOVE), at(behind, _LOW), at(through, _LOW)], axis=1)

    def _commands(self, velocity: np.ndarray) -> Tensor:
        body = self._embodiment
        action = np.zeros((len(velocity), 1, body.action_dim), dtype=np.float32)
        action[:, 0, self._velocity] = velocity
        low, high = (np.array([v for f in body.action for v in getattr(f, end)]) for end in ("low", "high"))
        return torch.from_numpy(action.clip(low, high).astype(np.float32))


def _bent(pixels: Float[Tensor, "n 2"]) -> Float[Tensor, "n 6"]:
    """1, u, v and their products: enough for a plane seen aslant."""
    u, v = pixels.unbind(1)
    return torch.stack([torch.ones_like(u), u, v, u * u, u * v, v * v], dim=1)
