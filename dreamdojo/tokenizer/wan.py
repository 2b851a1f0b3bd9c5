"""The video tokenizer of Wan 2.1: a convolutional autoencoder, causal in time.

Sides shrink by 8 and time by 4, the first frame alone: `1 + 4 n` frames give `1 + n` latent frames of 16 channels.

Everything here runs on one frame at a time. A 3-D convolution sees a frame and the two before it, so it is a 2-D
convolution over the channels of those three; the two before it are its memory. Nothing larger than one frame's features
is ever held, apart from that memory, and a video may be cut into calls between any two latent frames.

Time is resampled with two peculiarities, without which published weights give other numbers:

* Frame 0 takes no part in it. Down: it passes as it is, then `y_i = conv(x_{2i-2}, x_{2i-1}, x_{2i})`.
* Up, it passes as it is and is not remembered: the frames before latent frame 1 are zeros.

Latents are `(mu - mean) / std` with one published mean and standard deviation per channel; nothing is drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from dreamdojo.errors import ConfigError, DataError
from dreamdojo.tokenizer.normalised import NormalisedTokenizer
from dreamdojo.tokenizer.protocol import CausalState

# fmt: off
WAN_LATENT_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)
WAN_LATENT_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)
# fmt: on
"""Published statistics of the 16 latent channels; they belong to the published weights."""


@dataclass(frozen=True, kw_only=True)
class WanConfig:
    """Sizes of the Wan video tokenizer; the defaults are those of the published weights."""

    width: int = 96
    """Channels at full resolution."""
    latent_channels: int = 16
    """Channels of a latent frame."""
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    """Channels at each resolution, in multiples of `width`; the sides halve from one to the next."""
    blocks: int = 2
    """Residual blocks at each resolution of the encoder; the decoder has one more."""
    temporal_down: tuple[bool, ...] = (False, True, True)
    """At which of the halvings, counted from full resolution, time is halved too."""

    def __post_init__(self) -> None:
        if len(self.temporal_down) != len(self.multipliers) - 1:
            raise ConfigError(
                f"temporal_down must say yes or no for each halving between the {len(self.multipliers)} resolutions of "
                f"multipliers={self.multipliers}, got temporal_down={self.temporal_down}"
            )
        if self.width % 2:
            raise ConfigError(
                f"width must be even, as the decoder halves it when it doubles the sides; got {self.width}"
            )
        for name in ("width", "latent_channels", "blocks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def spatial_factor(self) -> int:
        """How many times smaller a latent frame's sides are."""
        return 2 ** len(self.temporal_down)

    @property
    def temporal_factor(self) -> int:
        """`k`, the frames of one latent frame after the first."""
        return 2 ** sum(self.temporal_down)


class TimeConv(nn.Module):
    """A 3-D convolution that sees a frame and those before it; before the first are zeros."""

    def __init__(self, before: int, after: int, kernel: tuple[int, int, int] = (3, 3, 3), *, kept: int = 2) -> None:
        """`kept` frames are remembered between calls."""
        super().__init__()
        self.kept = kept
        self.padding = (kernel[1] // 2, kernel[2] // 2)
        self.weight = nn.Parameter(torch.empty(after, before, *kernel))
        self.bias = nn.Parameter(torch.empty(after))
        bound = 1 / math.sqrt(before * math.prod(kernel))
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Float[Tensor, "b c h w"], memory: Memory) -> Float[Tensor, "b d h w"]:
        """The output at this frame; the frame is remembered."""
        if not self.kept:
            return self.mix((x,))
        seen = (*memory.get(self, ()), x)
        memory[self] = seen[-self.kept :]
        return self.mix(seen)

    def extra_repr(self) -> str:
        """What `print` shows."""
        after, before, *kernel = self.weight.shape
        return f"{before}, {after}, kernel={tuple(kernel)}, kept={self.kept}"

    def mix(self, frames: tuple[Tensor, ...]) -> Tensor:
        """One output frame from the last frames `b c h w`, the newest at the end; missing ones are zeros."""
        taps = rearrange(self.weight[:, :, -len(frames) :], "after before t h w -> after (t before) h w")
        seen = frames[0] if len(frames) == 1 else torch.cat(frames, dim=1)
        return nn.functional.conv2d(seen, taps, self.bias, padding=self.padding)


Memory: TypeAlias = dict[TimeConv, tuple[Tensor, ...]]
"""The frames that each convolution remembers, while a call runs."""


class ChannelNorm(nn.Module):
    """`x / |x| * sqrt(C) * gamma`, where `|x|` is the length over the channels of one pixel."""

    def __init__(self, width: int, *, axes: int = 3) -> None:
        """`axes` is how many axes of size one follow in the published `gamma`."""
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width, *[1] * axes))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Every pixel on its own."""
        normal = x / torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp(min=1e-12)
        normal *= self.gamma.view(-1, 1, 1) * x.shape[1] ** 0.5
        return normal


class ResidualBlock(nn.Module):
    """Two causal convolutions beside a shortcut, which is a 1x1 convolution where the width changes."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm_in = ChannelNorm(before)
        self.conv_in = TimeConv(before, after)
        self.norm_out = ChannelNorm(after)
        self.conv_out = TimeConv(after, after)
        self.shortcut = TimeConv(before, after, (1, 1, 1), kept=0) if before != after else None

    def forward(self, x: Float[Tensor, "b c h w"], memory: Memory) -> Float[Tensor, "b d h w"]:
        """One frame."""
        inner = self.conv_in(nn.functional.silu(self.norm_in(x), inplace=True), memory)
        inner = self.conv_out(nn.functional.silu(self.norm_out(inner), inplace=True), memory)
        inner += x if self.shortcut is None else self.shortcut(x, memory)
        return inner


class FrameAttention(nn.Module):
    """Residual attention with one head among the pixels of one frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width, axes=2)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """One frame."""
        query, key, value = rearrange(self.qkv(self.norm(x)), "b (three c) h w -> three b 1 (h w) c", three=3)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return x + self.out(rearrange(mixed, "b 1 (h w) c -> b c h w", h=x.shape[2]))


class Middle(nn.Module):
    """The lowest resolution: a residual block, attention, a residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before = ResidualBlock(width, width)
        self.attention = FrameAttention(width)
        self.after = ResidualBlock(width, width)

    def forward(self, x: Float[Tensor, "b c h w"], memory: Memory) -> Float[Tensor, "b c h w"]:
        """One frame."""
        return self.after(self.attention(self.before(x, memory)), memory)


class Down(nn.Module):
    """Halves the sides, and the rate of frames if `in_time`."""

    def __init__(self, width: int, *, in_time: bool) -> None:
        super().__init__()
        self.space = nn.Conv2d(width, width, 3, stride=2)
        self.time = TimeConv(width, width, (3, 1, 1), kept=1) if in_time else None

    def forward(self, x: Float[Tensor, "b c h w"], memory: Memory) -> Float[Tensor, "b c h2 w2"] | None:
        """The smaller frame; None where another frame is needed first."""
        x = self.space(nn.functional.pad(x, (0, 1, 0, 1)))
        if self.time is None:
            return x
        seen = (*memory.get(self.time, ()), x)
        if len(seen) == 2:
            memory[self.time] = seen
            return None
        memory[self.time] = (x,)
        return x if len(seen) == 1 else self.time.mix(seen)


class Up(nn.Module):
    """Doubles the sides and halves the width; makes two frames of one if `in_time`."""

    def __init__(self, width: int, *, in_time: bool) -> None:
        super().__init__()
        self.space = nn.Conv2d(width, width // 2, 3, padding=1)
        self.time = TimeConv(width, 2 * width, (3, 1, 1)) if in_time else None

    def forward(self, x: Float[Tensor, "b c h w"], memory: Memory) -> Iterator[Tensor]:
        """The larger frames `b c/2 2h 2w`, one after another."""
        frames: tuple[Tensor, ...] = (x,)
        if self.time is not None and self.time in memory:
            frames = self.time(x, memory).chunk(2, dim=1)
        elif self.time is not None:
            memory[self.time] = (torch.zeros_like(x), torch.zeros_like(x))
        for frame in frames:
            yield self.space(nn.functional.interpolate(frame, scale_factor=2.0, mode="nearest-exact"))


class EncoderStage(nn.Module):
    """The blocks of one resolution and the step to the next."""

    def __init__(self, before: int, after: int, blocks: int, down: Down | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([ResidualBlock(before if i == 0 else after, after) for i in range(blocks)])
        self.down = down

    def forward(self, x: Float[Tensor, "b c h w"], memory: Memory) -> Float[Tensor, "b d h2 w2"] | None:
        """One frame, or None where `down` needs another first."""
        for block in self.blocks:
            x = block(x, memory)
        return x if self.down is None else self.down(x, memory)


class DecoderStage(nn.Module):
    """The blocks of one resolution and the step to the next."""

    def __init__(self, before: int, after: int, blocks: int, up: Up | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([ResidualBlock(before if i == 0 else after, after) for i in range(blocks)])
        self.up = up

    def forward(self, x: Float[Tensor, "b c h w"], memory: Memory) -> Iterator[Tensor]:
        """The frames `b d h2 w2` that follow from one."""
        for block in self.blocks:
            x = block(x, memory)
        if self.up is None:
            yield x
        else:
            yield from self.up(x, memory)


class Encoder(nn.Module):
    """Frames to features at latent resolution."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        widths = [config.width * multiplier for multiplier in config.multipliers]
        self.conv_in = TimeConv(3, config.width)
        self.stages = nn.ModuleList()
        for level, after in enumerate(widths):
            last = level == len(widths) - 1
            down = None if last else Down(after, in_time=config.temporal_down[level])
            before = config.width if level == 0 else widths[level - 1]
            self.stages.append(EncoderStage(before, after, config.blocks, down))
        self.middle = Middle(widths[-1])
        self.norm_out = ChannelNorm(widths[-1])
        self.conv_out = TimeConv(widths[-1], 2 * config.latent_channels)

    def forward(self, x: Float[Tensor, "b c h w"], memory: Memory) -> Float[Tensor, "b d hl wl"] | None:
        """Mean and spread of the latent frame that ends with this frame; None inside a latent frame."""
        x = self.conv_in(x, memory)
        for stage in self.stages:
            x = stage(x, memory)
            if x is None:
                return None
        x = self.middle(x, memory)
        return self.conv_out(nn.functional.silu(self.norm_out(x), inplace=True), memory)


class Decoder(nn.Module):
    """Latent frames to frames."""

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        widths = [config.width * multiplier for multiplier in reversed(config.multipliers)]
        in_time = config.temporal_down[::-1]
        self.conv_in = TimeConv(config.latent_channels, widths[0])
        self.middle = Middle(widths[0])
        self.stages = nn.ModuleList()
        for level, after in enumerate(widths):
            last = level == len(widths) - 1
            up = None if last else Up(after, in_time=in_time[level])
            before = after if level == 0 else widths[level - 1] // 2
            self.stages.append(DecoderStage(before, after, config.blocks + 1, up))
        self.norm_out = ChannelNorm(widths[-1])
        self.conv_out = TimeConv(widths[-1], 3)

    def forward(self, x: Float[Tensor, "b c hl wl"], memory: Memory) -> Iterator[Tensor]:
        """The frames `b 3 h w` of one latent frame."""
        x = self.middle(self.conv_in(x, memory), memory)
        yield from self._rise(x, memory, 0)

    def _rise(self, x: Tensor, memory: Memory, level: int) -> Iterator[Tensor]:
        # One frame goes all the way up before the next is made, so few large frames are held at once.
        if level == len(self.stages):
            yield self.conv_out(nn.functional.silu(self.norm_out(x), inplace=True), memory)
            return
        for frame in self.stages[level](x, memory):
            yield from self._rise(frame, memory, level + 1)


class WanTokenizer(NormalisedTokenizer):
    """Frames in [-1, 1] to latent frames and back; satisfies `dreamdojo.tokenizer.protocol.VideoTokenizer`.

    Computes in the precision of its weights; latents and frames are float32.
    """

    def __init__(self, config: WanConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.latent_channels
        self.encoder = Encoder(config)
        self.to_posterior = TimeConv(2 * channels, 2 * channels, (1, 1, 1), kept=0)
        self.from_latent = TimeConv(channels, channels, (1, 1, 1), kept=0)
        self.decoder = Decoder(config)
        published = channels == len(WAN_LATENT_MEAN)
        self.register_buffer("latent_mean", torch.tensor(WAN_LATENT_MEAN) if published else torch.zeros(channels))
        self.register_buffer("latent_std", torch.tensor(WAN_LATENT_STD) if published else torch.ones(channels))

    def encode(
        self, frames: Float[Tensor, "b t c h w"], state: CausalState | None = None
    ) -> tuple[Float[Tensor, "b tl cl hl wl"], CausalState]:
        """Frames -> normalised latent frames, and the state that continues the video.

        Without a state the first frame is the first of the video: `t = 1 + k n`. With one, `t = k n`.

        Raises:
            DataError: if `t` does not fit `k`, the sides do not divide by `spatial_factor`, or the frames do not
                continue the state's video.
        """
        self._check_frames(frames, first=state is None)
        memory = _remember(self.encoder, state, frames[:, 0], "frames")
        means = []
        for frame in frames.unbind(1):
            features = self.encoder(self._at_the_door(frame), memory)
            if features is not None:
                mean, _ = self.to_posterior(features, memory).chunk(2, dim=1)
                means.append(mean.float())
        return self.normalise(torch.stack(means, dim=1)), _state(self.encoder, memory)

    def decode(
        self, latents: Float[Tensor, "b tl cl hl wl"], state: CausalState | None = None
    ) -> tuple[Float[Tensor, "b t c h w"], CausalState]:
        """Normalised latent frames -> frames, and the state that continues the video.

        Without a state the first latent frame is the first of the video and gives one frame; every other gives `k`.

        Raises:
            DataError: if there is no latent frame, or one of other channels than `latent_channels`, or the latents do
                not continue the state's video.
        """
        if not latents.shape[1] or latents.shape[2] != self.latent_channels:
            raise DataError(
                f"expected latents b t c h w with t of at least 1 and c = {self.latent_channels}, got "
                f"{tuple(latents.shape)}. They may come from another tokenizer."
            )
        memory = _remember(self.decoder, state, latents[:, 0], "latents")
        frames = []
        for mean in self.denormalise(latents.float()).unbind(1):
            features = self.from_latent(self._at_the_door(mean), memory)
            frames.extend(frame.float() for frame in self.decoder(features, memory))
        return torch.stack(frames, dim=1), _state(self.decoder, memory)

    def _check_frames(self, frames: Tensor, *, first: bool) -> None:
        t, c, h, w = frames.shape[1:]
        k, factor = self.temporal_factor, self.spatial_factor
        if c != 3:
            raise DataError(f"expected RGB frames b t 3 h w, got {tuple(frames.shape)}")
        if h % factor or w % factor:
            raise DataError(
                f"frames of {h}x{w} do not divide by the tokenizer's spatial factor {factor}. Crop or resize them to "
                f"{h // factor * factor}x{w // factor * factor}."
            )
        if (t - first) % k or t == 0:
            form = f"1 + {k} n frames (the first of a video alone, then {k} to a latent)"
            raise DataError(f"expected {form if first else f'{k} n frames after the first call'}, got {t}")

    def _at_the_door(self, frame: Tensor) -> Tensor:
        # A copy, so that what is remembered does not change with the caller's tensor, nor keep it alive.
        weight = self.from_latent.weight
        return frame.to(weight.dtype, memory_format=torch.channels_last, copy=True)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> WanTokenizer:
        # The statistics stay in float32 when weights are made smaller: rounding them would shift every latent.
        before = {name: getattr(self, name) for name in ("latent_mean", "latent_std")}
        super()._apply(fn, recurse)
        for name, statistic in before.items():
            after = getattr(self, name)
            if after.dtype != statistic.dtype:
                setattr(self, name, statistic.to(after.device))
        return self


def _rememberers(coder: nn.Module) -> list[TimeConv]:
    return [module for module in coder.modules() if isinstance(module, TimeConv) and module.kept]


def _remember(coder: nn.Module, state: CausalState | None, first: Tensor, what: str) -> Memory:
    """The state taken apart, or an empty memory; `first` is the first frame that is to follow."""
    if state is None:
        return {}
    modules = _rememberers(coder)
    expected = sum(module.kept for module in modules)
    if len(state) != expected or state[0].shape != first.shape:
        found = f"{len(state)} tensors" + (f", the first {tuple(state[0].shape)}" if state else "")
        raise DataError(
            f"expected a state of {expected} tensors that continues {what} {tuple(first.shape)}, found {found}. Give "
            "the state that the same method returned for the same video, or None to start a new one."
        )
    remaining = iter(state)
    return {module: tuple(next(remaining) for _ in range(module.kept)) for module in modules}


def _state(coder: nn.Module, memory: Memory) -> CausalState:
    """All that is remembered, in the order of the modules; a video of one frame has zeros before it."""
    parts: list[Tensor] = []
    for module in _rememberers(coder):
        seen = memory[module]
        parts += [torch.zeros_like(seen[0]) for _ in range(module.kept - len(seen))]
        parts += seen
    return tuple(parts)
