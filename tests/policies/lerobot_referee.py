"""Runs in LeRobot's own environment: a tiny ACT checkpoint, and what our side makes of it. Not a test itself."""

import sys
from pathlib import Path

import torch

# torchvision without its compiled part: LeRobot imports it, and it registers kernels for operators that must exist
_LIBRARY = torch.library.Library("torchvision", "DEF")
_LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.configs.types import FeatureType, PolicyFeature  # noqa: E402  # pyright: ignore[reportMissingImports]
from lerobot.policies.act.configuration_act import ACTConfig  # noqa: E402  # pyright: ignore[reportMissingImports]
from lerobot.policies.act.modeling_act import ACTPolicy  # noqa: E402  # pyright: ignore[reportMissingImports]
from lerobot.policies.act.processor_act import (  # noqa: E402  # pyright: ignore[reportMissingImports]
    make_act_pre_post_processors,
)

from dreamdojo.errors import CheckpointError, DataError  # noqa: E402
from dreamdojo.policies.lerobot import LeRobotPolicy  # noqa: E402
from dreamdojo.world import Observation, Policy  # noqa: E402

CAMERA, STATE, ACTION = "observation.images.top", "observation.state", "action"


def make_checkpoint(folder: Path) -> None:
    torch.manual_seed(0)
    config = ACTConfig(
        input_features={
            CAMERA: PolicyFeature(type=FeatureType.VISUAL, shape=(3, 32, 32)),
            STATE: PolicyFeature(type=FeatureType.STATE, shape=(2,)),
        },
        output_features={ACTION: PolicyFeature(type=FeatureType.ACTION, shape=(3,))},
        device="cpu",
        chunk_size=4,
        n_action_steps=4,
        dim_model=32,
        n_heads=2,
        dim_feedforward=32,
        n_encoder_layers=1,
        n_vae_encoder_layers=1,
        latent_dim=4,
        pretrained_backbone_weights=None,
    )
    stats = {
        CAMERA: {"mean": torch.full((3, 1, 1), 0.4), "std": torch.full((3, 1, 1), 0.2)},
        STATE: {"mean": torch.tensor([1.0, -1.0]), "std": torch.tensor([2.0, 3.0])},
        ACTION: {"mean": torch.tensor([10.0, 20.0, 30.0]), "std": torch.tensor([1.0, 2.0, 3.0])},
    }
    ACTPolicy(config).save_pretrained(folder)
    for processor in make_act_pre_post_processors(config, dataset_stats=stats):
        processor.save_pretrained(folder)


def main(folder: Path) -> None:
    checkpoint = folder / "checkpoint"
    make_checkpoint(checkpoint)
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (2, 1, 3, 32, 32), dtype=torch.uint8, generator=generator)
    state = torch.randn(2, 1, 2, generator=generator)
    policy = LeRobotPolicy(checkpoint, chunk=2)
    assert isinstance(policy, Policy)
    policy.reset(seed=0)
    seen = Observation(frames={"head": frames}, state=state)
    ours = torch.cat([policy.act(seen), policy.act(seen)], dim=1)

    # the same by hand: normalise, the network's whole chunk, and back to the robot's units
    network = ACTPolicy.from_pretrained(checkpoint).eval()
    normal = {
        CAMERA: (frames[:, 0].float() / 255 - 0.4) / 0.2,
        STATE: (state[:, 0] - torch.tensor([1.0, -1.0])) / torch.tensor([2.0, 3.0]),
    }
    with torch.no_grad():
        chunk = network.predict_action_chunk(normal)
    theirs = chunk * torch.tensor([1.0, 2.0, 3.0]) + torch.tensor([10.0, 20.0, 30.0])
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(ours[0], ours[1]), "two worlds, two answers"

    other = Observation(frames={"head": 255 - frames}, state=state)
    policy.reset(seed=0)
    assert not torch.allclose(policy.act(other), ours[:, :2]), "a reset forgets the queued actions"
    small = LeRobotPolicy(checkpoint, cameras={"head": CAMERA})
    resized = Observation(frames={"head": frames[..., ::2, ::2]}, state=state)
    assert small.act(resized).shape == (2, 1, 3), "pictures of another size are resized"
    for wrong, words in (
        (lambda: LeRobotPolicy(checkpoint, cameras={"head": "other"}).act(seen), "which"),
        (lambda: small.act(Observation(frames={"head": frames})), "proprioception"),
        (lambda: LeRobotPolicy(folder / "nothing"), "config.json"),
    ):
        try:
            wrong()
        except (DataError, CheckpointError) as error:
            assert words in str(error), error
        else:
            raise AssertionError(f"expected an error about {words}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
