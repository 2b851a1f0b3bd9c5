"""A LeRobot policy checkpoint, run by LeRobot itself where it is installed (0.4: processors beside the weights).

LeRobot wants other versions of several packages than DreamDojo; where both do not fit into one environment, serve the
policy from LeRobot's and speak to it as to an openpi server.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamdojo.errors import CheckpointError, DataError, MissingDependencyError
from dreamdojo.world import Observation

_PICTURE, _STATE = "observation.images.", "observation.state"


class LeRobotPolicy:
    """A pretrained policy of LeRobot (ACT, Diffusion, SmolVLA, ...) with its own pre- and postprocessing.

    It is asked `chunk` times per call, and keeps its queue of actions itself, as in LeRobot's own evaluation.

    Args:
        folder: the checkpoint's `pretrained_model` folder.
        cameras: our camera -> the feature it is to be, e.g. `{"head": "observation.images.top"}`. By default a camera
            is the feature of its name, or the only picture there is.
        task: what to do, in words, for policies that read.
        chunk: actions given at a time: the world's actions per step.
        device: where it computes.

    Raises:
        MissingDependencyError: if `lerobot` is not installed.
        CheckpointError: if the folder is no checkpoint of a policy.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cameras: Mapping[str, str] | None = None,
        task: str = "",
        chunk: int = 1,
        device: str = "cpu",
    ) -> None:
        try:
            from lerobot.configs.policies import PreTrainedConfig  # pyright: ignore[reportMissingImports]
            from lerobot.policies.factory import (  # pyright: ignore[reportMissingImports]
                get_policy_class,
                make_pre_post_processors,
            )
        except ImportError as error:
            raise MissingDependencyError(
                f"a LeRobot checkpoint is run by LeRobot, which cannot be imported here ({error}). Install it "
                "(pip install lerobot), or serve the policy from an environment that has it and give the server's "
                "address (ws://HOST:PORT)."
            ) from error
        if not (folder / "config.json").is_file():
            raise CheckpointError(
                f"{folder}: expected a LeRobot policy (config.json, model.safetensors), found no config.json. Give the "
                "folder pretrained_model of a checkpoint."
            )
        config = PreTrainedConfig.from_pretrained(folder)
        config.device = device
        self._policy = get_policy_class(config.type).from_pretrained(folder, config=config).eval()
        self._before, self._after = make_pre_post_processors(
            config, pretrained_path=str(folder), preprocessor_overrides={"device_processor": {"device": device}}
        )
        self._pictures = {name: tuple(feature.shape) for name, feature in config.image_features.items()}
        self._wants_state = _STATE in config.input_features
        self._cameras, self._task, self._chunk = dict(cameras or {}), task, chunk

    def reset(self, *, seed: int = 0) -> None:
        """Forget the queued actions; whatever is random is drawn from `seed`."""
        self._policy.reset()
        self._before.reset()
        self._after.reset()
        torch.manual_seed(seed)

    @torch.no_grad()
    def act(self, observation: Observation) -> Tensor:
        """The next `chunk` actions `b n a`.

        Raises:
            DataError: if a picture or the state that the policy wants is not there.
        """
        seen = self._batch(observation)
        actions = [self._after(self._policy.select_action(self._before(dict(seen)))) for _ in range(self._chunk)]
        return torch.stack([action.float().cpu() for action in actions], dim=1)

    def _batch(self, observation: Observation) -> dict[str, Any]:
        batch = len(next(iter(observation.frames.values())))
        seen: dict[str, Any] = {"task": [self._task] * batch}
        for feature, shape in self._pictures.items():
            frames = observation.frames[self._camera_of(feature, observation)][:, -1].float() / 255
            if tuple(frames.shape[-2:]) != shape[-2:]:
                frames = F.interpolate(frames, size=shape[-2:], mode="bilinear", antialias=True)
            seen[feature] = frames
        if self._wants_state:
            if observation.state is None:
                raise DataError("the policy wants proprioception: expected Observation.state, got None")
            seen[_STATE] = observation.state[:, -1].float()
        return seen

    def _camera_of(self, feature: str, observation: Observation) -> str:
        for camera in observation.frames:
            if self._cameras.get(camera, _PICTURE + camera) == feature:
                return camera
        if len(observation.frames) == len(self._pictures) == 1 and not self._cameras:
            return next(iter(observation.frames))
        raise DataError(
            f"the policy wants {feature}, the world shows the cameras {', '.join(observation.frames)}. Say which is "
            "which (cameras)."
        )
