"""The world model as trained: the DiT and, per embodiment, an adapter from its actions into the latent action's space.

Human video enters with latent actions and needs no adapter. A robot's action chunk is normalised by its declared ranges
and mapped by

    latent_action_chunk = linear(chunk) + mlp(chunk)

with the linear part fitted by ridge regression on minutes of labelled video and the MLP at zero, then trained with the
model. Latent actions are standardised by statistics measured on the pre-training set. In published weights every body
has fixed columns of a 384-wide action instead, and latent actions enter raw.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dreamdojo.dataset.actions import OVERWRITTEN
from dreamdojo.dataset.embodiment import Embodiment
from dreamdojo.errors import ConfigError
from dreamdojo.nn.init import init_linear
from dreamdojo.training.distributed import Shards
from dreamdojo.training.hub import Pretrained
from dreamdojo.world_model.dit import DiT, DiTConfig

LATENT_ACTION = "latent_action"
"""The name under which latent actions themselves enter, as those of video without labels do."""


@dataclass(frozen=True, kw_only=True)
class WorldModelConfig:
    """The network and the bodies it knows."""

    dit: DiTConfig
    """The network."""
    size: tuple[int, int]
    """Height and width of a frame in pixels."""
    rate: float
    """Frames (and actions) per second."""
    embodiments: tuple[Embodiment, ...] = ()
    """Bodies with an adapter."""
    adapter_hidden: int = 128
    """Inner width of each adapter's MLP."""
    text_tokens: int | None = None
    """Tokens of the one text that the model always sees, kept projected in its weights; None: it sees no text, or the
    caller gives it."""
    latent_action_slot: int | None = None
    """First column of latent actions in a wide action, as published; None: they are the action space."""
    reference_compatible: bool = False
    """Whether to repeat the faults that published weights were trained with (docs/faults.md)."""

    def __post_init__(self) -> None:
        if self.text_tokens is not None and (self.dit.text_dim is None or self.dit.text_features is not None):
            raise ConfigError(
                f"text_tokens={self.text_tokens} keeps a projected text, which needs a text_dim and no text_features: "
                f"got text_dim={self.dit.text_dim}, text_features={self.dit.text_features}"
            )
        for body in self.embodiments:
            if body.slot is not None and body.slot + body.action_dim > self.dit.action_dim:
                raise ConfigError(
                    f"embodiment {body.name} takes columns {body.slot} to {body.slot + body.action_dim} of an action, "
                    f"the model has {self.dit.action_dim}"
                )


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


class SlotAdapter(nn.Module):
    """The published way: a body's columns stand in its fixed slot of a wide action, all others are zero."""

    def __init__(self, body: Embodiment, dit: DiTConfig) -> None:
        super().__init__()
        assert body.slot is not None
        self.per_latent, self.slot, self.width = dit.actions_per_latent, body.slot, dit.action_dim

    def forward(self, chunk: Float[Tensor, "*b ka"]) -> Float[Tensor, "*b kl"]:
        """Place each action of each chunk."""
        return place_in_slot(chunk, self.per_latent, self.slot, self.width)


def place_in_slot(chunk: Float[Tensor, "*b ka"], k: int, slot: int, width: int) -> Float[Tensor, "*b kl"]:
    """Each of a chunk's `k` actions at columns `slot` and up of an action `width` wide, zeros elsewhere."""
    actions = chunk.unflatten(-1, (k, -1))
    return nn.functional.pad(actions, (slot, width - slot - actions.shape[-1])).flatten(-2)


class WorldModel(Pretrained):
    """The DiT, the adapters in front of it, the statistics of latent actions, and the text that it always sees."""

    latent_action_mean: Tensor
    latent_action_std: Tensor
    text: Tensor | None
    no_text: Tensor | None

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__()
        self.config = config
        self.dit = DiT(config.dit)
        self.adapters = nn.ModuleList(
            ActionAdapter(body.action_dim * config.dit.actions_per_latent, config.dit.chunk_dim, config.adapter_hidden)
            if body.slot is None
            else SlotAdapter(body, config.dit)
            for body in config.embodiments
        )
        self.register_buffer("latent_action_mean", torch.zeros(config.dit.action_dim))
        self.register_buffer("latent_action_std", torch.ones(config.dit.action_dim))
        text = no_text = None
        if config.text_tokens is not None and config.dit.text_dim is not None:
            text, no_text = torch.zeros(config.text_tokens, config.dit.text_dim), torch.zeros(config.dit.text_dim)
        self.register_buffer("text", text)
        self.register_buffer("no_text", no_text)

    def context(self, batch: int, dropped: Bool[Tensor, " b"] | None = None) -> Float[Tensor, "b s dt"] | None:
        """The text that the DiT attends to, None for a model without; where `dropped`, what zeroed features give."""
        if self.text is None or self.no_text is None:
            return None
        text = self.text.expand(batch, -1, -1)
        return text if dropped is None else torch.where(dropped[:, None, None], self.no_text, text)

    def adapter(self, embodiment: str) -> ActionAdapter | SlotAdapter:
        """The adapter of a body.

        Raises:
            ConfigError: if the model does not know the body.
        """
        for body, adapter in zip(self.config.embodiments, self.adapters, strict=True):
            if body.name == embodiment:
                assert isinstance(adapter, ActionAdapter | SlotAdapter)
                return adapter
        known = ", ".join(body.name for body in self.config.embodiments) or "none"
        raise ConfigError(f"the model has no adapter for {embodiment!r}; it knows: {known}. Post-train it first.")

    def conditioning(
        self, embodiment: str, chunk: Float[Tensor, "b t ka"], state: Float[Tensor, "b s"] | None = None
    ) -> Float[Tensor, "b t kl"]:
        """A body's normalised action chunks (or raw latent actions) -> what the DiT is conditioned on.

        `state` is the normalised state where the chunks begin. Only `reference_compatible` models see it: published
        weights were trained with the first columns of the first action overwritten by it (docs/faults.md, 3).
        """
        k = self.config.dit.actions_per_latent
        if embodiment == LATENT_ACTION:
            if self.config.latent_action_slot is not None:
                return place_in_slot(chunk, k, self.config.latent_action_slot, self.config.dit.action_dim)
            return (chunk - self.latent_action_mean.repeat(k)) / self.latent_action_std.repeat(k)
        placed = self.adapter(embodiment)(chunk)
        if self.config.reference_compatible and state is not None:
            placed = placed.clone()
            width = min(OVERWRITTEN, state.shape[-1])
            placed[:, 0, :width] = state[:, :width].to(placed)
        return placed

    def shards(self) -> Shards:
        """The DiT is what several processes divide; the adapters and statistics are small."""
        return Shards(network=self.dit, blocks=tuple(self.dit.blocks))

    def with_embodiments(self, *bodies: Embodiment) -> WorldModel:
        """The same weights with adapters for further bodies, which start afresh."""
        wider = WorldModel(replace(self.config, embodiments=(*self.config.embodiments, *bodies)))
        wider = wider.to(self.latent_action_mean.device)
        wider.load_state_dict(self.state_dict(), strict=False)
        return wider
