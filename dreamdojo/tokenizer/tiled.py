"""A tokenizer that works on overlapping tiles of a frame, one after another, so that less memory is needed at once.

Where tiles overlap their results are mixed with weights that rise and fall linearly and sum to one, so no seam shows.
What a tile holds is computed from that tile alone. A tokenizer that looks farther than half the overlap (attention over
the whole frame does) gives slightly other numbers than it would on the whole frame.

The memory of a streaming tokenizer is not smaller in tiles: it grows with the area, and overlaps count twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamdojo.errors import ConfigError, DataError
from dreamdojo.tokenizer.protocol import CausalState, VideoTokenizer


@dataclass(frozen=True)
class _Span:
    """The part of one side that a tile covers."""

    start: int
    stop: int
    before: int
    """How much of it the previous tile covers too."""
    after: int
    """How much of it the next tile covers too."""

    def times(self, factor: int) -> _Span:
        return _Span(self.start * factor, self.stop * factor, self.before * factor, self.after * factor)

    @property
    def slice(self) -> slice:
        return slice(self.start, self.stop)

    def weights(self) -> Tensor:
        """The share of this tile at each place: rising over `before`, one between, falling over `after`."""
        weights = torch.ones(self.stop - self.start)
        weights[: self.before] = _rising(self.before)
        weights[len(weights) - self.after :] = 1 - _rising(self.after)
        return weights


@dataclass(frozen=True)
class _Tile:
    rows: _Span
    columns: _Span

    def times(self, factor: int) -> _Tile:
        return _Tile(self.rows.times(factor), self.columns.times(factor))

    def cut(self, whole: Tensor) -> Tensor:
        return whole[..., self.rows.slice, self.columns.slice]

    def weights(self) -> Tensor:
        return self.rows.weights()[:, None] * self.columns.weights()


class TiledTokenizer(nn.Module):
    """Another tokenizer on overlapping tiles; satisfies `dreamdojo.tokenizer.protocol.VideoTokenizer`.

    Its state is the states of all tiles in one tuple, so it streams, and can be forked, as any other.
    """

    def __init__(self, tokenizer: VideoTokenizer, *, tile: int, overlap: int) -> None:
        """Tiles are at most `tile` pixels high and wide, and share `overlap` pixels with their neighbours.

        Raises:
            ConfigError: if either is not a multiple of the tokenizer's spatial factor, or the overlap is more than a
                third of a tile (more than two tiles in a row would meet at one place).
        """
        super().__init__()
        factor = tokenizer.spatial_factor
        for name, value in (("tile", tile), ("overlap", overlap)):
            if value <= 0 or value % factor:
                raise ConfigError(f"{name} must be a positive multiple of the spatial factor {factor}, got {value}")
        if 3 * overlap > tile:
            raise ConfigError(
                f"overlap must be at most a third of the tile: got overlap={overlap}, tile={tile}. Choose an overlap "
                f"of {tile // (3 * factor) * factor} or less, or a larger tile."
            )
        self.tokenizer = tokenizer
        self.tile = tile
        self.overlap = overlap

    @property
    def latent_channels(self) -> int:
        """Channels of a latent frame."""
        return self.tokenizer.latent_channels

    @property
    def spatial_factor(self) -> int:
        """How many times smaller a latent frame's sides are."""
        return self.tokenizer.spatial_factor

    @property
    def temporal_factor(self) -> int:
        """`k`, the frames of one latent frame after the first."""
        return self.tokenizer.temporal_factor

    def num_latents(self, num_frames: int) -> int:
        """Latent frames of a whole video of `num_frames`."""
        return self.tokenizer.num_latents(num_frames)

    def encode(
        self, frames: Float[Tensor, "b t c h w"], state: CausalState | None = None
    ) -> tuple[Float[Tensor, "b tl cl hl wl"], CausalState]:
        """Frames -> normalised latent frames, and the state that continues the video.

        Raises:
            DataError: if the tokenizer refuses the frames, or the state is of another number of tiles.
        """
        factor = self.spatial_factor
        h, w = frames.shape[-2:]
        if h % factor or w % factor:
            raise DataError(f"frames of {h}x{w} do not divide by the tokenizer's spatial factor {factor}")
        to = self._tiles(h // factor, w // factor)
        return self._in_tiles(self.tokenizer.encode, frames, [tile.times(factor) for tile in to], to, state)

    def decode(
        self, latents: Float[Tensor, "b tl cl hl wl"], state: CausalState | None = None
    ) -> tuple[Float[Tensor, "b t c h w"], CausalState]:
        """Normalised latent frames -> frames, and the state that continues the video.

        Raises:
            DataError: if the tokenizer refuses the latents, or the state is of another number of tiles.
        """
        tiles = self._tiles(*latents.shape[-2:])
        to = [tile.times(self.spatial_factor) for tile in tiles]
        return self._in_tiles(self.tokenizer.decode, latents, tiles, to, state)

    def _tiles(self, height: int, width: int) -> list[_Tile]:
        tile, overlap = self.tile // self.spatial_factor, self.overlap // self.spatial_factor
        columns = _spans(width, tile, overlap)
        return [_Tile(row, column) for row in _spans(height, tile, overlap) for column in columns]

    def _in_tiles(
        self,
        code: Callable[[Tensor, CausalState | None], tuple[Tensor, CausalState]],
        whole: Tensor,
        tiles: list[_Tile],
        to: list[_Tile],
        state: CausalState | None,
    ) -> tuple[Tensor, CausalState]:
        """Code each of `tiles` of `whole`; the results are mixed at `to`."""
        each, rest = divmod(len(state or ()), len(tiles))
        if rest:
            raise DataError(
                f"expected a state of {len(tiles)} tiles, found {len(state or ())} tensors, which do not divide among "
                "them. Give the state that the same method returned for frames of this size."
            )
        mixed: Tensor | None = None
        states: list[Tensor] = []
        for index, (tile, target) in enumerate(zip(tiles, to, strict=True)):
            part, new_state = code(tile.cut(whole), None if state is None else state[index * each : (index + 1) * each])
            states += new_state
            if mixed is None:
                mixed = part.new_zeros(*part.shape[:-2], to[-1].rows.stop, to[-1].columns.stop)
            target.cut(mixed).add_(part * target.weights().to(part))
        assert mixed is not None
        return mixed, tuple(states)


def _spans(length: int, tile: int, overlap: int) -> list[_Span]:
    """As few tiles as cover `length`, about equally long, each sharing exactly `overlap` with the next."""
    count = max(1, -((overlap - length) // (tile - overlap)))
    starts = [index * (length - overlap) // count for index in range(count + 1)]
    return [
        _Span(
            starts[index],
            starts[index + 1] + overlap,
            before=overlap if index else 0,
            after=overlap if index < count - 1 else 0,
        )
        for index in range(count)
    ]


def _rising(length: int) -> Tensor:
    return (torch.arange(length) + 0.5) / max(length, 1)
