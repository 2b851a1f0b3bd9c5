"""A policy by a word on the command line."""

from __future__ import annotations

from pathlib import Path

from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.errors import ConfigError
from dreamdojo.functions import find_function
from dreamdojo.policies.cloning import ClonedPolicy
from dreamdojo.policies.openpi import OpenpiKeys, OpenpiPolicy
from dreamdojo.policies.simple import FunctionPolicy, RandomPolicy
from dreamdojo.training.device import Compute
from dreamdojo.world import Policy

LEROBOT = "lerobot:"


def open_policy(
    word: str,
    embodiment: Embodiment,
    *,
    actions_per_step: int,
    fps: float | None = None,
    task: str = "",
    compute: Compute | None = None,
) -> Policy:
    """The policy that a word means.

    Args:
        word: `random`; a folder of `dreamdojo train-policy`; `lerobot:FOLDER`; `ws://HOST:PORT` or `wss://...` of an
            openpi server; `module:name` of a Python function `observation -> actions b n a`, of a `Policy`, or of a
            class that makes one without arguments.
        embodiment: whose actions it is to give.
        actions_per_step: the world's `k`.
        fps: the world's actions per second, which our own policies must have learned at; None does not look.
        task: what to do, in words, for policies that read.
        compute: where our own policies compute.

    Raises:
        ConfigError: if the word means nothing, or a policy that learned from another body or at another rate.
    """
    if word == "random":
        return RandomPolicy(embodiment, chunk=actions_per_step)
    if word.startswith(("ws://", "wss://")):
        return OpenpiPolicy(word, keys=OpenpiKeys(prompt=task))
    if word.startswith(LEROBOT):
        from dreamdojo.policies.lerobot import LeRobotPolicy

        return LeRobotPolicy(Path(word.removeprefix(LEROBOT)), task=task, chunk=actions_per_step)
    if Path(word).is_dir():
        policy = ClonedPolicy.load(Path(word), compute)
        learned, rate = policy.config.embodiment, policy.config.rate
        same = learned.action_names() == embodiment.action_names() and learned.state_names() == embodiment.state_names()
        if not same or fps not in (None, rate):
            raise ConfigError(
                f"{word}: expected a policy of {embodiment.name} at {fps or rate:g} Hz, found one of {learned.name} at "
                f"{rate:g} Hz. Train one on recordings of this body at this rate."
            )
        return policy
    if ":" in word:
        found = find_function(word)
        if isinstance(found, type):
            found = found()
        if isinstance(found, Policy):
            return found
        if not callable(found):
            raise ConfigError(f"{word}: expected a function or a policy, found a {type(found).__name__}")
        return FunctionPolicy(found)
    raise ConfigError(
        f"no policy {word!r}: expected random, the folder of a trained one, lerobot:FOLDER, ws://HOST:PORT or "
        "module:function"
    )
