"""The world model as trained: the DiT and, per embodiment, an adapter from its actions into the latent action's space.

Human video enters with latent actions and needs no adapter. A robot's action chunk is normalised by its declared ranges
and mapped by

    latent_action_chunk = linear(chunk) + mlp(chunk)

with the linear part fitted by ridge regression on minutes of labelled video and the MLP at zero, then trained with the
model. Latent actions are standardised by statistics measured on the pre-training set.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.errors import ConfigError
from dreamdojo.nn.init import init_linear
from dreamdojo.world_model.dit import DiT, DiTConfig

LATENT_ACTION = "latent_action"
"""The name under which latent actions themselves enter, as those of video without labels do."""


@dataclass(frozen=True, kw_only=True)
class WorldModelConfig:
    """The network and the bodies it knows."""

    dit: DiTConfig
    """The network."""
    size: int
    """Side of a square frame in pixels."""
    rate: float
    """Frames (and actions) per second."""
    embodiments: tuple[Embodiment, ...] = ()
    """Bodies with an adapter."""
    adapter_hidden: int = 128
    """Inner width of each adapter's MLP."""


class ActionAdapter(nn.Module):
    """From a normalised action chunk to a chunk of latent actions; starts as its linear part."""

    def __init__(self, action_chunk_dim: int, chunk_dim: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(action_chunk_dim, chunk_dim)
        self.mlp = nn.Sequential(nn.Linear(action_chunk_dim, hidden), nn.GELU(), nn.Linear(hidden, chunk_dim))
        init_linear(self.linear)
        init_linear(self.mlp[0])
        init_linear(self.mlp[2], zero=True)

    def forward(self, chunk: Float[Tensor, "*b ka"]) -> Float[Tensor, "*b kl"]:
        """Map each chunk on its own."""
        return self.linear(chunk) + self.mlp(chunk)

    @torch.no_grad()
    def start_from(self, weight: Float[Tensor, "kl ka"], bias: Float[Tensor, " kl"]) -> None:
        """Set the linear part."""
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(bias)


class WorldModel(nn.Module):
    """The DiT, the adapters in front of it, and the statistics of latent actions."""

    latent_action_mean: Tensor
    latent_action_std: Tensor

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.config = config
        self.dit = DiT(config.dit)
        self.adapters = nn.ModuleList(
            ActionAdapter(body.action_dim * config.dit.actions_per_latent, config.dit.chunk_dim, config.adapter_hidden)
            for body in config.embodiments
        )
        self.register_buffer("latent_action_mean", torch.zeros(config.dit.action_dim))
        self.register_buffer("latent_action_std", torch.ones(config.dit.action_dim))

    def adapter(self, embodiment: str) -> ActionAdapter:
        """The adapter of a body.

        Raises:
            ConfigError: if the model does not know the body.
        """
        for body, adapter in zip(self.config.embodiments, self.adapters, strict=True):
            if body.name == embodiment:
                assert isinstance(adapter, ActionAdapter)
                return adapter
        known = ", ".join(body.name for body in self.config.embodiments) or "none"
        raise ConfigError(f"the model has no adapter for {embodiment!r}; it knows: {known}. Post-train it first.")

    def conditioning(self, embodiment: str, chunk: Float[Tensor, "b t ka"]) -> Float[Tensor, "b t kl"]:
        """A body's normalised action chunks (or raw latent actions) -> what the DiT is conditioned on."""
        if embodiment != LATENT_ACTION:
            return self.adapter(embodiment)(chunk)
        k = self.config.dit.actions_per_latent
        return (chunk - self.latent_action_mean.repeat(k)) / self.latent_action_std.repeat(k)

    def with_embodiments(self, *bodies: Embodiment) -> WorldModel:
        """The same weights with adapters for further bodies, which start afresh."""
        config = WorldModelConfig(
            dit=self.config.dit,
            size=self.config.size,
            rate=self.config.rate,
            embodiments=(*self.config.embodiments, *bodies),
            adapter_hidden=self.config.adapter_hidden,
        )
        wider = WorldModel(config).to(self.latent_action_mean.device)
        wider.load_state_dict(self.state_dict(), strict=False)
        return wider
