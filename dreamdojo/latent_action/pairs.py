"""What an alignment is fitted on: chunks of a robot's actions with the latent actions of the same frames.

A latent action tells what changes, so a target that is a place is told from where the body is. The rule is read off the
declaration: an action field with the name, size and unit of a state field is a target for it (joint positions, the
opening of a gripper), and its base is that state where the chunk begins. Velocities and torques have no base. Bodies
that declare relative actions have the last action before the chunk as the base of every column, as their models do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreamdojo.dataset.actions import relative_actions
from dreamdojo.dataset.embodiment import Embodiment, Field
from dreamdojo.errors import DataError


@dataclass(frozen=True, kw_only=True)
class PairedEpisode:
    """An episode chunk by chunk: what was seen, what was commanded, and from where."""

    latent_action: Float[Tensor, "n kl"]
    action: Float[Tensor, "n ka"]
    """Normalised by the body's ranges."""
    base: Float[Tensor, "n a"]
    """Normalised; zero where an action has none."""


def paired_episode(
    body: Embodiment, latent_actions: np.ndarray, actions: np.ndarray, states: np.ndarray | None, *, chunk: int = 1
) -> PairedEpisode:
    """Latent actions `(t, l)` and actions `(t, a)` of the same intervals, with the states `(t, s)` where they begin.

    Actions and states are in the body's units. Rows beyond the last whole chunk, and beyond the shortest of the arrays,
    are left out.

    Raises:
        DataError: if the body has no actions, or its actions have a base that is not there.
    """
    if not body.action_dim:
        raise DataError(f"embodiment {body.name}: expected a robot with actions, found none")
    if states is None and _targets(body) and not body.relative:
        raise DataError(
            f"embodiment {body.name}: expected the states that {', '.join(f.name for f, _ in _targets(body))} aims "
            "from, found none"
        )
    rows = min(len(latent_actions), len(actions)) // chunk
    normal = body.normalize_action(actions[: rows * chunk])
    base = np.zeros((rows, body.action_dim), np.float32)
    if body.relative and rows:
        base = (normal - relative_actions(normal, normal[0], chunk))[::chunk]
    elif states is not None:
        base = state_base(body, states[: rows * chunk : chunk])
    return PairedEpisode(
        latent_action=_chunks(latent_actions[: rows * chunk], rows, chunk),
        action=_chunks(normal, rows, chunk),
        base=torch.from_numpy(base),
    )


def first_seconds(
    episodes: Sequence[PairedEpisode], seconds: float, *, rate: float, chunk: int = 1
) -> list[PairedEpisode]:
    """The first seconds of a robot's episodes at `rate` actions per second, the last of them cut short."""
    taken, left = [], round(seconds * rate / chunk)
    for episode in episodes:
        if left <= 0:
            break
        parts = {part: getattr(episode, part)[:left] for part in ("latent_action", "action", "base")}
        taken.append(replace(episode, **parts))
        left -= len(episode.action)
    return taken


def _chunks(values: np.ndarray, rows: int, chunk: int) -> Tensor:
    return torch.from_numpy(values.reshape(rows, chunk * values.shape[1]).astype(np.float32))


def needs_base(body: Embodiment) -> bool:
    """Whether a body's actions are told from a state or from the last action."""
    return body.relative or bool(_targets(body))


def _targets(body: Embodiment) -> list[tuple[Field, Field]]:
    """Action fields that are targets for a state field, with that field."""
    return [
        (action, state)
        for action in body.action
        for state in body.state
        if (action.name, action.size, action.unit) == (state.name, state.size, state.unit)
    ]


def state_base(body: Embodiment, states: np.ndarray) -> np.ndarray:
    """The normalised base `(*b, a)` of actions that aim from `states` `(*b, s)`; zero where an action has none."""
    raw, base = (np.zeros((*states.shape[:-1], body.action_dim), np.float32) for _ in range(2))
    for action, state in _targets(body):
        raw[..., body.columns(action.name, of="action")] = states[..., body.columns(state.name, of="state")]
    normal = body.normalize_action(raw)
    for action, _ in _targets(body):
        columns = body.columns(action.name, of="action")
        base[..., columns] = normal[..., columns]
    return base


def paired_rows(episodes: Sequence[PairedEpisode], chunk: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latent actions, actions minus their bases, and the number of the episode of each row."""
    latent = torch.cat([episode.latent_action for episode in episodes])
    action = torch.cat([episode.action - episode.base.repeat(1, chunk) for episode in episodes])
    groups = torch.cat([torch.full((len(episode.action),), i) for i, episode in enumerate(episodes)])
    return latent, action, groups


def check_pairs(train: Sequence[PairedEpisode], held_out: Sequence[PairedEpisode], body: Embodiment) -> None:
    """Refuse what no alignment can be fitted on.

    Raises:
        DataError: if there are no actions, too few or too short episodes, or numbers that are not finite.
    """
    if not body.action_dim:
        raise DataError(f"embodiment {body.name}: expected a robot with actions to align with, found none")
    _enough_episodes(len(train) + len(held_out))
    if len(train) < 2 or not held_out:
        raise DataError(
            f"expected at least two episodes to fit on and one to hold out, got {len(train)} and {len(held_out)}. "
            "Change the share that is held out, or record more episodes."
        )
    for name, episodes in (("fit on", train), ("hold out", held_out)):
        for number, episode in enumerate(episodes):
            for part in ("latent_action", "action", "base"):
                bad = int((~getattr(episode, part).isfinite()).sum())
                if bad:
                    raise DataError(
                        f"expected finite numbers, found {bad} that are not in the {part} of episode {number} of those "
                        f"to {name}. Leave the episode out, or repair it."
                    )
        if not sum(len(episode.action) for episode in episodes):
            raise DataError(f"expected whole action chunks in the episodes to {name}, found none. Use longer episodes.")


def _enough_episodes(count: int) -> None:
    if count < 3:
        raise DataError(
            f"expected at least 3 episodes, so that two can be fitted on and one held out, found {count}. Record more, "
            "or cut a long recording into several."
        )
