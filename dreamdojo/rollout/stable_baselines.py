"""The vector form of `dreamdojo/World-v0` as Stable-Baselines3 wants it, so that its algorithms learn in a dream.

envs = gymnasium.make_vec("dreamdojo/World-v0", num_envs=16, vectorization_mode="vector_entry_point", reward=...)
PPO("MultiInputPolicy", StableBaselinesEnv(envs)).learn(50_000)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from dreamdojo.errors import ConfigError, MissingDependencyError

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise MissingDependencyError(
        'learning with Stable-Baselines3 needs it: pip install "dreamdojo[learning]"'
    ) from error


class StableBaselinesEnv(VecEnv):
    """Steps all rows as one, and begins the next episodes as soon as these are over.

    The last observation of an episode is in `infos[i]["terminal_observation"]`, beside `TimeLimit.truncated`, so that
    values are bootstrapped there.

    Args:
        envs: a `WorldVectorEnv`, wrapped or not, whose episodes end together.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> Any:
        """Start anew, from what `seed` was last given or else from where the generators are."""
        seed = self._seeds[0]
        observation, _ = self.envs.reset(seed=seed)  # row i is seeded with seed + i, as `VecEnv.seed` says
        self._reset_seeds()
        return observation

    def step_async(self, actions: np.ndarray) -> None:
        """Remember what to do."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """One step of every world.

        Raises:
            ConfigError: if some episodes end and others go on.
        """
        seen, worth, terminated, truncated, _ = self.envs.step(self._actions)
        over = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if over.any():
            if not over.all():
                raise ConfigError(
                    f"rows of one session are reset together: expected all {self.num_envs} episodes to end at once, "
                    f"{int(over.sum())} did. End episodes by their length, and let the reward say what is done."
                )
            for row, info in enumerate(infos):
                info["terminal_observation"] = _row(seen, row)
                info["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
            seen = self.reset()
        return seen, worth.astype(np.float32), over, infos

    def close(self) -> None:
        """Let go of the worlds."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute, which all rows share."""
        return [getattr(self.envs, attr_name)] * len(self._rows(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of all rows."""
        setattr(self.envs, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method once, for all rows."""
        found = getattr(self.envs, method_name)(*method_args, **method_kwargs)
        return [found] * len(self._rows(indices))

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Rows are not environments of their own, so none is wrapped."""
        return [False] * len(self._rows(indices))

    def _rows(self, indices: Any) -> Sequence[int]:
        return list(self._get_indices(indices))


def _row(seen: Any, row: int) -> Any:
    return {name: values[row] for name, values in seen.items()} if isinstance(seen, dict) else seen[row]
