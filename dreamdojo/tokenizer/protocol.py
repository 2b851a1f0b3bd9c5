"""What every video tokenizer does: frames to latents and back, from call to call."""

from __future__ import annotations

from typing import Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float
from torch import Tensor

CausalState: TypeAlias = tuple[Tensor, ...]
"""What a causal encoder or decoder remembers between calls.

Every tensor has the batch as axis 0, so a state is forked by expanding that axis. A state is never changed in place.
`()` is the state of a coder that remembers nothing; it is not the first call, which is None.
"""


@runtime_checkable
class VideoTokenizer(Protocol):
    """Causal in time: frame 0 is latent frame 0, every later latent frame holds `temporal_factor` (k) frames."""

    @property
    def latent_channels(self) -> int:
        """Channels of a latent frame."""
        ...

    @property
    def spatial_factor(self) -> int:
        """How many times smaller a latent frame's sides are."""
        ...

    @property
    def temporal_factor(self) -> int:
        """`k`, the frames of one latent frame after the first."""
        ...

    def num_latents(self, num_frames: int) -> int:
        """Latent frames of a whole video of `num_frames`."""
        ...

    def encode(
        self, frames: Float[Tensor, "b t c h w"], state: CausalState | None = None
    ) -> tuple[Float[Tensor, "b tl cl hl wl"], CausalState]:
        """Frames in [-1, 1] -> normalised latent frames, and the state that continues the video.

        Without a state the first frame is the first of the video: `t = 1 + k n`. With one, `t = k n`.
        """
        ...

    def decode(
        self, latents: Float[Tensor, "b tl cl hl wl"], state: CausalState | None = None
    ) -> tuple[Float[Tensor, "b t c h w"], CausalState]:
        """Normalised latent frames -> frames, and the state that continues the video.

        Without a state the first latent frame is the first of the video and gives one frame; every other gives `k`.
        """
        ...
