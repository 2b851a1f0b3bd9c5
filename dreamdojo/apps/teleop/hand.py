"""A hand before a webcam drives the robot: two pictures -> latent action -> the robot's command, by the alignment."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from dreamdojo.apps.play.messages import BadMessageError
from dreamdojo.apps.teleop.messages import Hand
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.errors import ConfigError
from dreamdojo.latent_action.align import Alignment
from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.latent_action.train import infer_latent_actions
from dreamdojo.training.checkpoint import load_model
from dreamdojo.training.device import Compute, choose_compute
from dreamdojo.video import Size, resize

_LARGEST = 512
"""Sides of a picture that is taken, pixels: anything larger is no webcam thumbnail."""


class HandSource:
    """The last two pictures of a webcam, as a command."""

    def __init__(
        self, model: LatentActionModel, alignment: Alignment, embodiment: Embodiment, size: Size, compute: Compute
    ) -> None:
        """Hold a latent action model and its alignment with the robot.

        Raises:
            ConfigError: if the alignment is with another robot, or maps several actions at once.
        """
        if alignment.config.embodiment != embodiment or alignment.config.chunk != 1:
            raise ConfigError(
                f"expected an alignment of single actions with {embodiment.name}, got one of "
                f"{alignment.config.chunk} with {alignment.config.embodiment.name}. Run dreamdojo latent-action align."
            )
        self._model, self._alignment, self._size, self._compute = model, alignment, size, compute
        self._embodiment = embodiment
        self._pictures: list[np.ndarray] = []

    def hear(self, jpeg: str) -> None:
        """The webcam's newest picture, base64.

        Raises:
            BadMessageError: if it is none.
        """
        try:
            image = Image.open(io.BytesIO(base64.b64decode(jpeg, validate=True)), formats=["JPEG"])
            if max(image.size) > _LARGEST:
                raise ValueError(f"{image.width}x{image.height} pixels")
            picture = np.asarray(image.convert("RGB"))
        except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise BadMessageError(f"hand.jpeg: {error}", Hand.form) from error
        self._pictures = [*self._pictures[-1:], resize(picture[None], self._size)[0]]

    def command(self, state: np.ndarray | None, before: np.ndarray) -> np.ndarray | None:
        """The normalised command that looks like what the hand did last; None before it has done anything."""
        if len(self._pictures) < 2:
            return None
        frames = np.stack(self._pictures).transpose(0, 3, 1, 2)
        self._pictures = self._pictures[-1:]
        latent = infer_latent_actions(self._model, frames, self._compute)[:1]
        action = self._alignment.commands(latent, state=state, before=before)[0]
        return np.clip(self._embodiment.normalize_action(action), -1.0, 1.0)


def open_hand(model: Path, alignment: Path, embodiment: Embodiment, size: Size) -> HandSource:
    """The hand of a run that has been aligned with the robot.

    Raises:
        ConfigError: if it has not, or with another robot.
    """
    if not (alignment / "model.safetensors").exists():
        raise ConfigError(
            f"expected an alignment in {alignment}, found none: a hand is mapped to the robot through it. Make it with "
            "dreamdojo latent-action align"
        )
    return HandSource(
        load_model(model, LatentActionModel), load_model(alignment, Alignment), embodiment, size, choose_compute("cpu")
    )
