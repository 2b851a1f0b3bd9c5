import dataclasses

import numpy as np
import pytest
import torch

from dreamdojo.dataset.windows import Source
from dreamdojo.errors import ConfigError
from dreamdojo.latent_action.losses import LossWeights, info_nce, label_error, latent_action_loss
from dreamdojo.latent_action.model import LatentActionConfig, LatentActionModel, LatentActionPosterior
from dreamdojo.latent_action.train import (
    LatentActionTraining,
    geometric_view,
    in_another_scene,
    photometric_view,
    train_latent_action_model,
    travelled,
)
from dreamdojo.training.fit import FitConfig
from tests.tiny import CPU, awake, tiny_tokenizer

FIT = FitConfig(steps=3, batch_size=4, learning_rate=1e-3, log_every=1)
CONFIG = LatentActionConfig(
    dim=16,
    latent_dim=3,
    num_heads=2,
    encoder_blocks=1,
    decoder_blocks=1,
    patch_size=8,
    early_fusion=True,
    residual=True,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def clip(batch=2, frames=2, size=16, seed=0):
    return torch.rand(batch, frames, 3, size, size, generator=generator(seed))


def training(**changes):
    return LatentActionTraining(fit=FIT, **changes)


def test_rows_of_one_pair_attract_and_all_others_repel():
    first = torch.eye(4)
    assert info_nce(first, first) < info_nce(first, first.roll(1, dims=0))


def test_each_part_counts_by_its_weight():
    frames, redrawn = clip(seed=1), clip(seed=2)
    posterior = LatentActionPosterior(*torch.randn(2, 2, 2, 3, generator=generator()).unbind(0))
    other, moved = torch.randn(2, 2, 2, 3, generator=generator(3)).unbind(0)
    features = (torch.ones(5), torch.zeros(5))

    def total(**weights):
        return latent_action_loss(
            next_frames=frames,
            redrawn=redrawn,
            posterior=posterior,
            weights=LossWeights(**{"kl": 0.0, **weights}),
            other_view=other,
            transferred=moved,
            features=features,
            labels=torch.zeros(2, 2, 2),
        )

    plain = total()
    torch.testing.assert_close(plain.total, (frames - redrawn).square().mean())
    for name in ("kl", "contrastive", "transfer", "features", "labels"):
        part = getattr(plain, name)
        assert part > 0
        torch.testing.assert_close(total(**{name: 0.5}).total, plain.total + 0.5 * part)


def test_a_view_moves_both_frames_alike_and_keeps_what_does_not_change():
    frames = clip()
    still = frames[:, :1].expand(-1, 2, -1, -1, -1)
    seen = geometric_view(still, training(shift=0.2, zoom=0.2), generator())
    torch.testing.assert_close(seen[:, 0], seen[:, 1])
    assert not torch.allclose(seen, still) and not torch.allclose(
        seen[0], geometric_view(still, training(), generator())[0]
    )
    assert torch.equal(geometric_view(frames, training(), generator()), frames)
    lit = photometric_view(still, training(), generator())
    torch.testing.assert_close(lit[:, 0], lit[:, 1])


def test_a_shifted_view_is_the_picture_a_shift_away():
    frames = torch.zeros(1, 2, 3, 16, 16)
    frames[:, :, :, 8, 8] = 1
    view = geometric_view(frames, training(shift=0.25), generator(5))
    found = (view[0, 0, 0] == view[0, 0, 0].max()).nonzero()[0] - 8
    assert view.max() > 0.2 and 0 < found.abs().max() <= 4


def test_what_was_moved_to_another_scene_comes_back_in_its_own_row():
    class Painter(LatentActionModel):
        """Draws its latent action into the picture and reads it off again, whatever the scene."""

        def decode(self, frames, latent_action):
            return frames + latent_action[..., None, None]

        def encode(self, frames):
            change = (frames[:, 1:] - frames[:, :-1]).mean(dim=(3, 4))
            return LatentActionPosterior(change, change)

    scenes = 0.2 + 0.1 * clip(batch=3, frames=1)
    latent_action = 0.3 * torch.rand(3, 1, 3, generator=generator(1))
    torch.testing.assert_close(in_another_scene(Painter(CONFIG), scenes, latent_action), latent_action)


def test_the_decoder_is_not_trained_through_what_it_drew_for_another_scene():
    model = awake(LatentActionModel(CONFIG))
    in_another_scene(model, clip(frames=1), torch.ones(2, 1, 3)).sum().backward()
    assert all(parameter.grad is None for parameter in model.decoder.parameters())
    assert any(parameter.grad is not None for parameter in model.encoder.parameters())


def test_only_labelled_pairs_teach_the_first_numbers():
    latent_action = torch.tensor([[[1.0, 2.0, 9.0]], [[5.0, 5.0, 9.0]]])
    labels = torch.tensor([[[1.0, 0.0]], [[torch.nan, torch.nan]]])
    torch.testing.assert_close(label_error(latent_action, labels), torch.tensor(2.0))
    assert label_error(latent_action, torch.full((2, 1, 2), torch.nan)) == 0


def test_a_difference_over_any_stride_is_the_motion_in_between():
    motion = np.array([[1.0], [2.0], [4.0]])
    far = travelled(motion)
    assert far.dtype == np.float32 and far.shape == (4, 1)
    np.testing.assert_allclose(far[3] - far[1], motion[1:].sum(axis=0))


def test_labels_and_their_weight_go_together(tmp_path):
    frames = np.zeros((6, 3, 16, 16), np.uint8)
    source = Source(embodiment="human", episodes=[{"frames": frames}])
    with pytest.raises(ConfigError, match="needs labels"):
        train_latent_action_model(CONFIG, training(label_weight=1.0), [source], tmp_path, compute=CPU)
    wide = Source(embodiment="human", episodes=[{"frames": frames, "travelled": np.zeros((6, 9), np.float32)}])
    with pytest.raises(ConfigError, match="9 labels"):
        train_latent_action_model(CONFIG, training(label_weight=1.0), [wide], tmp_path, compute=CPU)


@pytest.mark.parametrize("weight", ["contrastive_weight", "transfer_weight", "feature_weight", "label_weight"])
def test_every_objective_trains(tmp_path, weight):
    frames = np.random.default_rng(0).integers(0, 255, (6, 3, 16, 16), dtype=np.uint8)
    source = Source(embodiment="human", episodes=[{"frames": frames, "travelled": np.ones((6, 2), np.float32)}])
    settings = dataclasses.replace(training(shift=0.1), **{weight: 0.1})
    model = train_latent_action_model(
        CONFIG,
        settings,
        [source],
        tmp_path,
        compute=CPU,
        tokenizer=tiny_tokenizer() if weight == "feature_weight" else None,
    )
    assert isinstance(model, LatentActionModel)


def test_a_feature_target_needs_a_tokenizer(tmp_path):
    with pytest.raises(ConfigError, match="needs a trained tokenizer"):
        train_latent_action_model(CONFIG, training(feature_weight=1.0), [], tmp_path, compute=CPU)
