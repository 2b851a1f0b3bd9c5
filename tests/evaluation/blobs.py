"""A world of three blobs whose motion is known, and latent action models of it whose health is known.

The red blob is the hand's place (x, y), the green one its height and opening (z, opening), the blue one stands
still and marks the scene. Models see pictures only.
"""

import torch

from dreamdojo.evaluation.health import Targets, make_pairs
from dreamdojo.latent_action.model import LatentActionPosterior

SIZE, NAMES = 24, ("x", "y", "z", "opening")
GRID = torch.stack(torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="xy")).float()


def draw(places):
    """Places `n 3 2` in pixels -> pictures `n 3 h w` in [0, 1]."""
    distance = (GRID - places[..., None, None]).square().sum(dim=2)
    return 0.8 * torch.exp(-distance / 4.5)


def find(pictures):
    """Pictures `n 3 h w` -> the places `n 3 2` of the blobs, whatever their light."""
    weight = pictures - pictures.amin(dim=(2, 3), keepdim=True)
    weight = weight / weight.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    return (weight[:, :, None] * GRID).sum(dim=(3, 4))


def recording(count, *, length=16, seed=0, motion_scale=1.0, centre=12.0):
    """`count` episodes as uint8 frames, and the true motion of all their pairs."""
    generator = torch.Generator().manual_seed(seed)
    episodes, motion = [], []
    for _ in range(count):
        steps = motion_scale * torch.randn(length - 1, 2, 2, generator=generator)
        start = centre + 2 * torch.randn(1, 2, 2, generator=generator)
        moving = torch.cat([start, start + steps.cumsum(dim=0)]).clamp(6, 18)
        scene = (12 + 3 * torch.randn(1, 1, 2, generator=generator)).clamp(6, 18).expand(length, 1, 2)
        episodes.append((255 * draw(torch.cat([moving, scene], dim=1))).round().to(torch.uint8))
        motion.append(moving.diff(dim=0).flatten(1))
    return episodes, Targets(names=NAMES, values=torch.cat(motion))


def blob_pairs(model, name="human", count=12, *, seed=0, known=True, **settings):
    """The pairs of a recording as `model` sees them."""
    episodes, motion = recording(count, seed=seed, **settings)
    return make_pairs(name, episodes, model, motion=motion if known else None)


class _Blobs:
    log_variance = -6.0

    def encode(self, frames):
        first, second = (find(frames[:, i]) for i in (0, 1))
        mean = self.latent(first, second)[:, None]
        return LatentActionPosterior(mean, torch.full_like(mean, self.log_variance))

    def decode(self, frames, latent_action):
        first, z = find(frames.flatten(0, 1)), latent_action.flatten(0, 1)
        return draw(self.places(first, z)).unflatten(0, frames.shape[:2])


class Perfect(_Blobs):
    """Its latent action is the true motion, seen against the scene; its decoder makes it."""

    def latent(self, first, second):
        moved = second - first
        return (moved[:, :2] - moved[:, 2:]).flatten(1)

    def places(self, first, z):
        return torch.cat([first[:, :2] + z.unflatten(-1, (2, 2)), first[:, 2:]], dim=1)


class Collapsed(_Blobs):
    """It says nothing, and its decoder repeats the frame."""

    def latent(self, first, second):
        return torch.full((len(first), 4), 0.3)

    def places(self, first, z):
        return first


class Deaf(Perfect):
    """Its encoder is perfect; its decoder does not listen."""

    def places(self, first, z):
        return first + 0 * z.sum()


class Mute(Perfect):
    """Its decoder could listen; its encoder says nothing."""

    def latent(self, first, second):
        return torch.zeros(len(first), 4)


class Leaky(_Blobs):
    """Its latent action is where things are in the next frame, not how they moved."""

    def latent(self, first, second):
        return second[:, :2].flatten(1) / 4

    def places(self, first, z):
        return torch.cat([4 * z.unflatten(-1, (2, 2)), first[:, 2:]], dim=1)


class Half(Perfect):
    """It tells half of each motion, by which its decoder moves."""

    def latent(self, first, second):
        return 0.5 * super().latent(first, second)


class Shy(Perfect):
    """It tells x alone; its decoder knows all four."""

    def latent(self, first, second):
        return super().latent(first, second) * torch.tensor([1.0, 0.0, 0.0, 0.0])
