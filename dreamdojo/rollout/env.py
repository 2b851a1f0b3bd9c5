"""A world as a Gymnasium environment, and many as one: `import dreamdojo.rollout.env` registers `dreamdojo/World-v0`.

    env = gymnasium.make("dreamdojo/World-v0", checkpoint="nano", reward="my_task:reward")
    envs = gymnasium.make_vec("dreamdojo/World-v0", num_envs=16, checkpoint="nano", reward="my_task:reward")

The vector form is one session of batch `num_envs`, not so many sessions. Its episodes begin and end together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

import dreamdojo
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.read import Dataset, open_dataset
from dreamdojo.errors import ConfigError, DataError, MissingDependencyError
from dreamdojo.functions import find_function
from dreamdojo.rollout.session import CAMERA, Session
from dreamdojo.rollout.starts import fitted, recorded_start
from dreamdojo.training.device import Device
from dreamdojo.world import Observation, Prediction, World

try:
    import gymnasium
    from gymnasium import spaces
    from gymnasium.utils.seeding import np_random
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
except ImportError as error:
    raise MissingDependencyError('the environment needs gymnasium: pip install "dreamdojo[dojo]"') from error

Reward = Callable[[Prediction, Tensor], Tensor]
"""What a step is worth: the prediction and the actions `b k a` that led to it -> `b`."""

Starts = Callable[[int], Observation]
"""Start number `i`: one real frame `1 1 c h w` of the world's size, with the state where there is one."""

MANY = 1_000_000
"""Starts that are drawn from; a dataset's episodes are counted round."""


def dojo_starts(session: Session, split: str) -> Starts:
    """Scenes of a split of the dojo.

    Raises:
        ConfigError: if the session's body does not live there.
    """
    name, _, control = session.embodiment.name.partition("/")
    if not name.startswith("dojo_"):
        raise ConfigError(f"{session} cannot start in the dojo: give starts=, the folder of its dataset")
    from dreamdojo.dojo.splits import seed_of
    from dreamdojo.dojo.world import DojoWorld

    world = DojoWorld(name.removeprefix("dojo_"), control=control, depth=session.depth is not None)
    return lambda index: fitted(world.reset(seed=seed_of(split, index)), session.size)


def recorded_starts(session: Session, dataset: Dataset, camera: str | None = None) -> Starts:
    """First frames of a dataset's episodes."""
    episodes = [episode.index for episode in dataset.episodes]
    return lambda index: recorded_start(session, dataset, episodes[index % len(episodes)], camera)


def no_reward(prediction: Prediction, actions: Tensor) -> Tensor:
    """Nothing is worth anything: for driving and for collecting episodes."""
    del prediction
    return torch.zeros(len(actions))


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A moment of an environment, to come back to as often as one likes."""

    world: World
    steps: int
    seen: dict[str, np.ndarray]


class _Rollouts:
    """What both environments are made of: worlds that start together and what is seen of them, row by row."""

    def __init__(
        self,
        *,
        checkpoint: str | Path = "nano",
        world: World | None = None,
        starts: Starts | str | Path | None = None,
        split: str = "train",
        reward: Reward | str = no_reward,
        horizon: int = 64,
        device: Device = "auto",
    ) -> None:
        self.world: World = dreamdojo.load(checkpoint, device=device) if world is None else world
        self.reward = find_function(reward) if isinstance(reward, str) else reward
        self.horizon, self.steps, self._split = horizon, 0, split
        self._starts: Starts | None = None
        if isinstance(self.world, Session):
            if isinstance(starts, (str, Path)):
                starts = recorded_starts(self.world, open_dataset(Path(starts)))
            self._starts = starts or dojo_starts(self.world, split)
        first = self._first([0], seed=0)
        self.seen: dict[str, np.ndarray] = {}
        self.observation_space = spaces.Dict(self._spaces(first))
        body, k = self.world.embodiment, self.world.actions_per_step
        shape = (body.action_dim,) if k == 1 else (k, body.action_dim)
        self.action_space = spaces.Box(-1.0, 1.0, shape, np.float32)

    def reset(self, generators: Sequence[np.random.Generator]) -> None:
        """Draw a start for each row; the first row's generator also draws the seed of the world's noise."""
        rows = [int(generator.integers(MANY)) for generator in generators]
        self.steps = 0
        self._look(self._first(rows, seed=int(generators[0].integers(2**31))))

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Advance by actions `b (k) a` in [-1, 1]; returns what they were worth, `b` float64."""
        normal = np.asarray(actions, np.float32).reshape(len(actions), -1, self.world.embodiment.action_dim)
        given = torch.from_numpy(self.world.embodiment.denormalize_action(normal))
        prediction = self.world.step(given)
        self.steps += 1
        self._look(Observation(frames=prediction.frames, state=prediction.state))
        return self.reward(prediction, given).double().numpy()

    def snapshot(self) -> Snapshot:
        """This moment."""
        return Snapshot(world=self.world.fork(1), steps=self.steps, seen=self.seen)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from there; the snapshot stays good."""
        self.world, self.steps, self.seen = snapshot.world.fork(1), snapshot.steps, snapshot.seen

    @property
    def is_over(self) -> bool:
        """Whether the horizon is reached."""
        return self.steps >= self.horizon

    def _first(self, rows: Sequence[int], seed: int) -> Observation:
        if self._starts is not None:
            starts = [self._starts(row) for row in rows]
            return self.world.reset(_stacked(starts), seed=seed)
        if len(rows) != 1:
            raise ConfigError(f"only sessions run in batches; a {type(self.world).__name__} starts one scene at a time")
        from dreamdojo.dojo.splits import seed_of

        return self.world.reset(seed=seed_of(self._split, rows[0]))

    def _look(self, observation: Observation) -> None:
        frames = observation.frames[CAMERA][:, -1].permute(0, 2, 3, 1).contiguous().numpy()
        self.seen = {"pixels": frames}
        if "state" in self.observation_space.spaces:
            if observation.state is None:
                raise DataError("the world gave a state at the start and gives none now; give starts without states")
            low, high = _state_limits(self.world.embodiment)
            self.seen["state"] = np.clip(observation.state[:, -1].numpy(), low, high)

    def _spaces(self, first: Observation) -> dict[str, spaces.Space]:
        height, width = first.frames[CAMERA].shape[-2:]
        found: dict[str, spaces.Space] = {"pixels": spaces.Box(0, 255, (height, width, 3), np.uint8)}
        body = self.world.embodiment
        if first.state is not None and any(field.integrates for field in body.action):
            low, high = _state_limits(body)
            found["state"] = spaces.Box(low, high, dtype=np.float32)
        return found


class WorldEnv(gymnasium.Env[Any, np.ndarray]):
    """One world. Observation: `pixels`, and `state` where the world predicts it. Action: in [-1, 1] of each range.

    Episodes are truncated after `horizon` steps; nothing terminates them. `snapshot`, `restore` and `branch` are those
    of `env.unwrapped`.

    Args:
        checkpoint: a model that ships, or the folder of a teacher or student.
        world: instead, any world, such as a `DojoWorld` in which to try what was learned in a dream.
        starts: where a session starts: a function, the folder of a dataset, or None for scenes of the dojo.
        split: of the dojo's scenes.
        reward: what a step is worth, a function or `module:function`.
        horizon: steps of an episode.
        device: where a checkpoint computes.
        render_mode: `rgb_array` or None.

    Raises:
        ConfigError: if a setting is unknown, or the body needs `starts`.
        CheckpointError: if the folder is not a whole checkpoint.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, *, render_mode: str | None = None, **settings: Any) -> None:
        self._rollouts = _Rollouts(**settings)
        self.render_mode = render_mode
        self.observation_space = self._rollouts.observation_space
        self.action_space = self._rollouts.action_space

    @property
    def world(self) -> World:
        """What is stepped."""
        return self._rollouts.world

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start anew from a start that `seed` draws."""
        super().reset(seed=seed)
        self._rollouts.reset([self.np_random])
        return self._row(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One step of the world."""
        worth = self._rollouts.step(np.asarray(action)[None])
        return self._row(), float(worth[0]), False, self._rollouts.is_over, {}

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The latest frame, in mode `rgb_array`."""
        return self._rollouts.seen["pixels"][0] if self.render_mode else None

    def snapshot(self) -> Snapshot:
        """This moment."""
        return self._rollouts.snapshot()

    def restore(self, snapshot: Snapshot) -> dict[str, np.ndarray]:
        """Go on from a snapshot; returns what is seen there."""
        self._rollouts.restore(snapshot)
        return self._row()

    def branch(self, n: int) -> list[Snapshot]:
        """`n` copies of this moment, each to be restored on its own; for stepping them together fork the world."""
        return [self.snapshot() for _ in range(n)]

    def _row(self) -> dict[str, np.ndarray]:
        return {name: values[0].copy() for name, values in self._rollouts.seen.items()}


class WorldVectorEnv(VectorEnv[Any, Any, Any]):
    """Many worlds as one session; settings as of `WorldEnv`.

    All episodes are truncated together, and the step after that resets them all (Gymnasium's `NEXT_STEP`).
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, num_envs: int = 1, **settings: Any) -> None:
        self._rollouts = _Rollouts(**settings)
        self.num_envs = num_envs
        self.single_observation_space = self._rollouts.observation_space
        self.single_action_space = self._rollouts.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators = [np.random.default_rng() for _ in range(num_envs)]

    @property
    def world(self) -> World:
        """What is stepped."""
        return self._rollouts.world

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start all anew; a number seeds row `i` with `seed + i`."""
        seeds = [seed + row for row in range(self.num_envs)] if isinstance(seed, int) else seed
        for row, given in enumerate(seeds or []):
            if given is not None:
                self._generators[row] = np_random(given)[0]
        self._rollouts.reset(self._generators)
        return self._seen(), {}

    def step(self, actions: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict]:
        """One step of every world, or, after the last of an episode, the first frames of the next."""
        nothing = np.zeros(self.num_envs, dtype=bool)
        if self._rollouts.is_over:
            self._rollouts.reset(self._generators)
            return self._seen(), np.zeros(self.num_envs), nothing, nothing.copy(), {}
        worth = self._rollouts.step(actions)
        return self._seen(), worth, nothing, np.full(self.num_envs, self._rollouts.is_over), {}

    def snapshot(self) -> Snapshot:
        """This moment of all worlds."""
        return self._rollouts.snapshot()

    def restore(self, snapshot: Snapshot) -> dict[str, np.ndarray]:
        """Go on from a snapshot of as many worlds, or, from a snapshot of one, with a branch of it in every row.

        Raises:
            ConfigError: if the snapshot has another number of worlds, and not one.
        """
        count = len(snapshot.seen["pixels"])
        if count not in (1, self.num_envs):
            raise ConfigError(f"expected a snapshot of 1 or {self.num_envs} worlds, got one of {count}")
        if count == 1:
            seen = {name: values.repeat(self.num_envs, axis=0) for name, values in snapshot.seen.items()}
            snapshot = Snapshot(world=snapshot.world.fork(self.num_envs), steps=snapshot.steps, seen=seen)
        self._rollouts.restore(snapshot)
        return self._seen()

    def _seen(self) -> dict[str, np.ndarray]:
        return {name: values.copy() for name, values in self._rollouts.seen.items()}


def _stacked(starts: Sequence[Observation]) -> Observation:
    states = [start.state for start in starts if start.state is not None]
    depths = [start.depth[CAMERA] for start in starts if start.depth is not None]
    return Observation(
        frames={CAMERA: torch.cat([start.frames[CAMERA] for start in starts])},
        state=torch.cat(states) if len(states) == len(starts) else None,
        depth={CAMERA: torch.cat(depths)} if len(depths) == len(starts) else None,
    )


def _state_limits(body: Embodiment) -> tuple[np.ndarray, np.ndarray]:
    """The declared range of every state, and as much again on both sides: what is measured may be a little outside."""
    low = np.array([value for field in body.state for value in field.low], np.float32)
    high = np.array([value for field in body.state for value in field.high], np.float32)
    return low - (high - low), high + (high - low)


gymnasium.register(
    id="dreamdojo/World-v0",
    entry_point="dreamdojo.rollout.env:WorldEnv",
    vector_entry_point="dreamdojo.rollout.env:WorldVectorEnv",
    nondeterministic=False,
)
