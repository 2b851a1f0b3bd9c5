"""What training reads of a run's datasets: frames, latents, and the actions that go with them."""

from __future__ import annotations

import dataclasses

import numpy as np

from dreamdojo.dataset.actions import relative_actions
from dreamdojo.dataset.cache import SideCache
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.dataset.resample import resample
from dreamdojo.dataset.stream import EpisodeStream
from dreamdojo.dataset.windows import Arrays, Source
from dreamdojo.errors import ConfigError, DataError
from dreamdojo.latent_action.pairs import PairedEpisode, paired_episode
from dreamdojo.latent_action.train import travelled
from dreamdojo.stages.run import Episodes, Run, channels_first, clip_starts
from dreamdojo.world_model.model import LATENT_ACTION
from dreamdojo.world_model.train import latent_episode


def frame_source(run: Run, episodes: Episodes, size: tuple[int, int] | None = None) -> Source:
    """Frames for the tokenizer and the latent action model."""
    name, weight = episodes.dataset.embodiment.name, episodes.weight
    if run.stream_gb is not None:
        return Source(embodiment=name, episodes=run.stream(episodes, size), weight=weight)
    frames = run.frames(episodes, size)
    arrays = [{"frames": channels_first(frames[index])} for index in frames.of(episodes.indices)]
    return Source(embodiment=name, episodes=arrays, weight=weight)


def depth_source(run: Run, episodes: Episodes) -> Source:
    """Depth pictures, in metres, for the tokenizer of depth."""
    name, weight = episodes.dataset.embodiment.name, episodes.weight
    if run.stream_gb is not None:
        return Source(embodiment=name, episodes=run.stream(episodes, kind="depth"), weight=weight)
    depth = run.depth(episodes)
    arrays = [{"frames": depth[index][:, None]} for index in depth.of(episodes.indices)]
    return Source(embodiment=name, episodes=arrays, weight=weight)


def latent_action_source(run: Run, episodes: Episodes, weight: float | None = None) -> Source:
    """Latents with latent actions, for video without labels; weighted as the episodes are, or otherwise."""
    latents, actions = run.latents(episodes), run.latent_actions(episodes)
    usable = latents.of(actions.of(episodes.indices))
    return Source(
        embodiment=LATENT_ACTION,
        episodes=[part for i in usable for part in training_episodes(run, latents[i], actions[i][:-1])],
        weight=episodes.weight if weight is None else weight,
    )


def robot_source(run: Run, episodes: Episodes, body: Embodiment | None = None, weight: float = 1.0) -> Source:
    """Latents with the robot's own normalised actions, as `body` says that a model wants them."""
    latents, body = run.latents(episodes), body or episodes.dataset.embodiment
    return Source(
        embodiment=body.name,
        episodes=[
            part for i in latents.of(episodes.indices) for part in robot_episodes(run, episodes, latents, i, body)
        ],
        weight=weight,
    )


def robot_episodes(run: Run, episodes: Episodes, latents: SideCache, index: int, body: Embodiment) -> list[Arrays]:
    """One robot episode as `training_episodes`, with its normalised actions and states."""
    actions, states = robot_motion(run, episodes, index, body)
    return training_episodes(run, latents[index], actions, relative=body.relative, states=states)


def robot_motion(run: Run, episodes: Episodes, index: int, body: Embodiment) -> tuple[np.ndarray, np.ndarray | None]:
    """Normalised actions `t-1 a` and states `t s` of an episode at the preset's rate.

    Raises:
        DataError: if the dataset has no actions.
    """
    resampled = resample(episodes.dataset, index, run.preset.rate)
    if resampled.actions is None:
        raise DataError(f"{episodes.dataset.root}: expected a robot dataset with an 'action' column, found none")
    states = None if resampled.states is None else body.normalize_state(resampled.states)
    return body.normalize_action(resampled.actions), states


def training_episodes(
    run: Run, latents: np.ndarray, actions: np.ndarray, *, relative: bool = False, states: np.ndarray | None = None
) -> list[Arrays]:
    """An episode as training reads it: whole, or cut into clips that each start anew.

    Relative actions start from the action before the clip; before an episode's first nothing was commanded, and it
    counts as its own base. Clips carry the state at that base, which models of published weights may ask for.
    """
    k, clip = run.preset.tokenizer.temporal_factor, run.preset.clip_frames
    rows = len(latents) if clip is None else 1 + (clip - 1) // k
    parts: list[Arrays] = []
    for number, start in enumerate(clip_starts(len(actions) + 1, clip, k)):
        own = actions[start:][: k * (rows - 1)]
        base = max(start - 1, 0)
        given = relative_actions(own, actions[base], k) if relative and len(own) else own
        part = dict(latent_episode(latents[number * rows :][:rows], given, k))
        if clip is not None and states is not None:
            part["state"] = np.repeat(states[base][None], rows, axis=0)
        parts.append(part)
    return parts


def labelled_sources(run: Run, human: Episodes, robot: Episodes) -> list[Source]:
    """Video without labels beside a robot's, whose commanded motion is known in units of its spread.

    Both are drawn as often as they have episodes.

    Raises:
        ConfigError: if video is streamed.
        DataError: if the robot's dataset has no actions.
    """
    if run.stream_gb is not None:
        raise ConfigError("labels are known for cached frames only: leave --stream-gb out, or --labelled")
    size, body = run.preset.latent_action_size, robot.dataset.embodiment
    unseen, seen = frame_source(run, human, size), frame_source(run, robot, size)
    motion = []
    for index in run.frames(robot, size).of(robot.indices):
        resampled = resample(robot.dataset, index, run.preset.rate)
        if resampled.actions is None:
            raise DataError(f"{robot.dataset.root}: expected a robot dataset with an 'action' column, found none")
        told = np.zeros((len(resampled.actions), 1), np.float32)
        paired = paired_episode(body, told, resampled.actions, resampled.states)
        motion.append((paired.action - paired.base).numpy())
    spread = np.concatenate(motion).std(axis=0).clip(1e-6)
    assert not isinstance(seen.episodes, EpisodeStream) and not isinstance(unseen.episodes, EpisodeStream)
    known = [{**e, "travelled": travelled(m / spread)} for e, m in zip(seen.episodes, motion, strict=True)]
    unknown = [
        {**e, "travelled": np.full((len(e["frames"]), len(spread)), np.nan, np.float32)} for e in unseen.episodes
    ]
    return [
        dataclasses.replace(unseen, episodes=unknown, weight=len(unknown)),
        dataclasses.replace(seen, episodes=known, weight=len(known)),
    ]


def paired_episodes(run: Run, robot: Episodes) -> list[PairedEpisode]:
    """Latent actions and actions of a robot's episodes, chunk by chunk.

    Raises:
        DataError: if the dataset has no actions, or lacks the states that they aim from.
    """
    body = robot.dataset.embodiment
    if not body.action_dim:
        raise DataError(f"{robot.dataset.root}: expected a robot dataset with an 'action' column, found none")
    inferred, episodes = run.latent_actions(robot), []
    for index in inferred.of(robot.indices):
        resampled = resample(robot.dataset, index, run.preset.rate)
        assert resampled.actions is not None
        chunk = run.preset.tokenizer.temporal_factor
        episodes.append(paired_episode(body, inferred[index][:-1], resampled.actions, resampled.states, chunk=chunk))
    return episodes
