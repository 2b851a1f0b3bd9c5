"""Arms of `gpu.py` that generate: the device's own ceilings, teacher and student, with and without a decoder.

Weights are random, of the published sizes, in bfloat16. A student frame is one latent frame (four frames of video):
four denoising passes and the one that commits it, with three latent frames in the cache. Modes:

    eager           plain PyTorch
    graph           the whole frame as one CUDA graph
    compiled        torch.compile of the blocks (and of the decoder's norms or residual blocks)
    compiled-graph  both
    cudnn-graph     both, and cuDNN's attention before all others
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_measure import (
    Graphed,
    Setting,
    build,
    compile_each,
    finite,
    graphs_compiled,
    measure,
    peak_memory,
    rate,
    relative_error,
    reset_peak,
)
from dreamdojo.presets.paper import PAPER_2B, PAPER_14B
from dreamdojo.presets.preset import Preset
from dreamdojo.rollout.dream import CausalDream, ClipDream, FrameState
from dreamdojo.tokenizer.model import ResidualBlock, Tokenizer, TokenizerConfig
from dreamdojo.tokenizer.protocol import CausalState
from dreamdojo.tokenizer.wan import ChannelNorm, WanConfig, WanTokenizer
from dreamdojo.world_model.budget import Grid, pass_flops
from dreamdojo.world_model.dit import DiTConfig
from dreamdojo.world_model.model import WorldModel, WorldModelConfig
from dreamdojo.world_model.sample import CausalSampler, ChunkSampler, RolloutState

Arm = Callable[[Setting], dict[str, Any]]
Mode = Literal["eager", "graph", "compiled", "compiled-graph", "cudnn", "cudnn-graph"]

WINDOW = 4
"""Latent frames of the student's window, the current one included."""
CLIP = 4
"""Latent frames of the teacher's clip; the first is given."""
SMALL_WIDTH = 128
PRESETS = {"2b": PAPER_2B, "14b": PAPER_14B}


def sized(preset: Preset, setting: Setting) -> Preset:
    """The preset, or one that a CPU runs in no time."""
    if not setting.quick:
        return preset
    dit = replace(preset.world_model, dim=64, num_heads=2, num_blocks=2, modulation_rank=8, text_dim=16)
    return replace(
        preset,
        size=(32, 48),
        text_tokens=4,
        tokenizer=WanConfig(width=8, blocks=1),
        world_model=dit,
        student=replace(preset.student, teacher=replace(preset.student.teacher, steps=2)),
    )


def world_model(preset: Preset, dit: DiTConfig, setting: Setting, dtype: torch.dtype = torch.bfloat16) -> WorldModel:
    """The preset's world model with random weights."""
    config = WorldModelConfig(
        dit=dit,
        size=preset.size,
        rate=preset.rate,
        text_tokens=preset.text_tokens,
        latent_action_slot=preset.latent_action_slot,
    )
    return build(lambda: WorldModel(config), setting, dtype)


def grid_of(preset: Preset) -> Grid:
    factor = preset.tokenizer.spatial_factor
    return Grid(rows=preset.size[0] // factor, columns=preset.size[1] // factor)


class InBfloat16:
    """The small tokenizer with its weights in bfloat16, to which it wants its inputs converted."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.latent_channels = tokenizer.latent_channels
        self.spatial_factor, self.temporal_factor = tokenizer.spatial_factor, tokenizer.temporal_factor

    def num_latents(self, num_frames: int) -> int:
        return self._tokenizer.num_latents(num_frames)

    def encode(self, frames: Tensor, state: CausalState | None = None) -> tuple[Tensor, CausalState]:
        return self._tokenizer.encode(frames.bfloat16(), state)

    def decode(self, latents: Tensor, state: CausalState | None = None) -> tuple[Tensor, CausalState]:
        return self._tokenizer.decode(latents.bfloat16(), state)


def tokenizer_of(name: str, preset: Preset, setting: Setting) -> tuple[Any, nn.Module]:
    """A tokenizer by name, and its module."""
    if name == "wan":
        assert isinstance(preset.tokenizer, WanConfig)
        config = preset.tokenizer
        wan = build(lambda: WanTokenizer(config), setting)
        return wan, wan
    width = 8 if setting.quick else SMALL_WIDTH
    small_config = TokenizerConfig(latent_channels=16, width=width, spatial_factor=8, temporal_factor=4)
    small = build(lambda: Tokenizer(small_config), setting).to(memory_format=torch.channels_last)
    return InBfloat16(small), small


def compile_tokenizer(module: nn.Module, setting: Setting) -> None:
    """Wan's norms (its convolutions carry memory, which stays outside), or the small one's residual blocks."""
    compile_each((part for part in module.modules() if isinstance(part, ChannelNorm | ResidualBlock)), setting)


def attention_of(mode: str) -> contextlib.AbstractContextManager:
    """cuDNN's attention first, where the mode says so; the others remain for what it does not take."""
    if not mode.startswith("cudnn"):
        return contextlib.nullcontext()
    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return sdpa_kernel(order, set_priority=True)


# --- the device ------------------------------------------------------------------------------------------------------


def device(setting: Setting) -> dict[str, Any]:
    """The two ceilings: a large matrix product on random data, and a large copy."""
    side = 64 if setting.quick else 8192
    a, b = (setting.randn(side, side, dtype=torch.bfloat16) for _ in range(2))
    torch.mm(a, b)
    product = measure(lambda: torch.mm(a, b), setting)
    source = setting.randn(2**8 if setting.quick else 2**30, dtype=torch.float32)
    target = torch.empty_like(source)
    target.copy_(source)
    copy = measure(lambda: target.copy_(source), setting)
    return {
        "matmul_side": side,
        "matmul_ms": product,
        "matmul_tflop_per_second": 2 * side**3 / product["median"] / 1e9,
        "copy_ms": copy,
        "copy_tb_per_second": 2 * 4 * source.numel() / copy["median"] / 1e9,
    }


@torch.no_grad()
def parts(batch: int, frames: int, past: int, setting: Setting) -> dict[str, Any]:
    """What a block of the 2B is made of, each alone: its products, its attention, its modulation, and the whole."""
    preset = sized(PAPER_2B, setting)
    dit = replace(preset.world_model, num_blocks=1)
    model = world_model(preset, dit, setting)
    n = grid_of(preset).tokens(dit)
    tokens, seen = batch * frames * n, (past + frames) * n
    figures: dict[str, Any] = {"tokens": tokens, "tokens_seen": batch * seen}

    def add(name: str, flops: float, step: Callable[[], object]) -> None:
        for _ in range(3):
            step()
        ms = measure(step, setting, seconds=0.3)
        figures[name] = {"ms": ms, "tflop_per_second": flops / ms["median"] / 1e9}

    d = dit.dim
    for name, width_in, width_out in (
        ("product d d", d, d),
        ("product d 3d (query, key and value in one)", d, 3 * d),
        ("product d 4d", d, 4 * d),
        ("product 4d d", 4 * d, d),
    ):
        x = setting.randn(tokens, width_in, dtype=torch.bfloat16)
        w = setting.randn(width_out, width_in, dtype=torch.bfloat16)
        add(name, 2 * tokens * width_in * width_out, partial(nn.functional.linear, x, w))

    shape = (batch, dit.num_heads, dit.head_dim)
    kernels = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION") if setting.cuda else ("FLASH_ATTENTION",)
    for name in kernels:
        q, k, v = (
            setting.randn(shape[0], m, *shape[1:], dtype=torch.bfloat16).transpose(1, 2)
            for m in (frames * n, seen, seen)
        )
        try:
            with sdpa_kernel([getattr(SDPBackend, name)]):
                flops = 4 * batch * frames * n * seen * d
                add(name.lower(), flops, partial(nn.functional.scaled_dot_product_attention, q, k, v))
        except RuntimeError as error:  # a kernel that this device does not have
            figures[name.lower()] = {"error": str(error).splitlines()[0]}

    block = model.dit.blocks[0]
    e, shared = setting.randn(batch, frames, d), setting.randn(batch, frames, 3 * d)
    modulations = [block.self_modulation, block.cross_modulation, block.mlp_modulation]
    add("modulations", 0.0, lambda: [modulation(e, shared) for modulation in modulations])

    x = setting.randn(batch, frames, n, d, dtype=torch.bfloat16)
    text = model.context(batch)
    kept = None
    if past:
        _, kept = block(
            setting.randn(batch, past, n, d, dtype=torch.bfloat16),
            setting.randn(batch, past, d),
            setting.randn(batch, past, 3 * d),
            angles=model.dit.rotary_angles(past, *rows_and_columns(preset, dit), setting.device),
            mask=None,
            past=None,
            text=text,
        )
    angles = model.dit.rotary_angles(past + frames, *rows_and_columns(preset, dit), setting.device)
    two, one = (flops_of(each, preset, frames, past) for each in (replace(dit, num_blocks=2), dit))
    for name in ("block, eager", "block, compiled"):
        if name.endswith("compiled"):
            compile_each(model.dit.blocks, setting)
        step = partial(block, x, e, shared, angles=angles, mask=None, past=kept, text=text)
        add(name, batch * (two - one), step)
    return figures


def rows_and_columns(preset: Preset, dit: DiTConfig) -> tuple[int, int]:
    """The token grid of a frame."""
    grid = grid_of(preset)
    return grid.rows // dit.patch_size, grid.columns // dit.patch_size


@lru_cache
def flops_of(dit: DiTConfig, preset: Preset, frames: int, past: int = 0) -> int:
    """Operations of one pass at batch 1."""
    return pass_flops(dit, grid_of(preset), frames=frames, past=past, text_tokens=preset.text_tokens or 1)


# --- the teacher -----------------------------------------------------------------------------------------------------


def teacher(
    name: str, mode: Mode, setting: Setting, *, steps: int | None = None, decoder: bool = False
) -> dict[str, Any]:
    """One clip of twelve new frames; with `steps=1`, one pass; with `decoder`, from picture to pictures."""
    preset = sized(PRESETS[name], setting)
    config = preset.student.teacher
    config = replace(config, steps=steps) if steps is not None else config
    model = world_model(preset, preset.world_model, setting)
    grid = grid_of(preset)
    chunks = setting.randn(1, CLIP - 1, model.config.dit.chunk_dim)
    given = setting.randn(1, 1, model.config.dit.latent_channels, grid.rows, grid.columns)
    noise = setting.randn(1, CLIP, *given.shape[2:])
    sampler = ChunkSampler(model, config)
    one_pass = ChunkSampler(model, replace(config, steps=1))

    def denoise() -> Tensor:
        return sampler.predict(given, chunks, noise)

    figures: dict[str, Any] = {"steps": config.steps, "guidance": config.guidance, "new_frames": 4 * (CLIP - 1)}
    with torch.no_grad(), attention_of(mode):
        expected = one_pass.predict(given, chunks, noise)
        if mode != "eager":
            compile_each(model.dit.blocks, setting)
            figures["error_against_eager"] = relative_error(one_pass.predict(given, chunks, noise), expected)
        step = denoise
        if decoder:
            tokenizer, module = tokenizer_of("wan", preset, setting)
            compile_tokenizer(module, setting)
            dream = ClipDream(model, tokenizer, config)
            state = dream.start(setting.randn(1, 1, 3, *preset.size).clamp(-1, 1))

            def step() -> Tensor:
                return dream.step(state, chunks, lambda shape: setting.randn(*shape))[0]

        finite(step())
        reset_peak(setting)
        ms = measure(step, setting, seconds=5.0)
    flops = config.steps * flops_of(model.config.dit, preset, CLIP)
    seconds = ms["median"] / 1000
    return {
        **figures,
        "ms_per_clip": ms,
        "seconds_per_clip": seconds,
        "ms_per_pass": ms["median"] / config.steps,
        "frames_per_second": figures["new_frames"] / seconds if config.steps > 1 else None,
        **({} if decoder else rate(flops, ms["median"])),
        **peak_memory(setting),
        **graphs_compiled(setting),
    }


# --- the student -----------------------------------------------------------------------------------------------------


def student(name: str, decoder: str, batch: int, mode: Mode, setting: Setting) -> dict[str, Any]:
    """One latent frame, and the frames of video that a decoder makes of it."""
    preset = sized(PRESETS[name], setting)
    model = world_model(preset, replace(preset.world_model, causal=True, window=WINDOW), setting)
    config, dit, grid = preset.student.sampler, model.config.dit, grid_of(preset)
    shape = (batch, dit.latent_channels, grid.rows, grid.columns)
    fresh = [(setting.randn(batch, dit.chunk_dim), setting.randn(*shape)) for _ in range(8)]
    sampler = CausalSampler(model, config, WINDOW)
    state: Any = sampler.start(setting.randn(*shape))
    for chunk, _ in fresh[: WINDOW - 1]:
        state = sampler.append(state, setting.randn(*shape), chunk)
    assert state.num_frames == WINDOW - 1
    frame, module = sampler.step, None
    if decoder != "dit":
        tokenizer, module = tokenizer_of(decoder, preset, setting)
        dream = CausalDream(model, tokenizer, config)
        with torch.no_grad():
            _, decoder_state = tokenizer.decode(setting.randn(batch, 3, *shape[1:]))
        state = FrameState(state, (), decoder_state)

        @torch.no_grad()
        def frame(state: FrameState, chunk: Tensor, noise: Tensor) -> tuple[Tensor, FrameState]:
            return dream.step(state, chunk[:, None], lambda _: noise[:, None])

    figures: dict[str, Any] = {"batch": batch, "passes": config.steps + 1, "window": WINDOW, "decoder": decoder}
    if decoder == "small":
        figures["decoder_width"] = SMALL_WIDTH
    with attention_of(mode):
        expected = shown(frame(state, *fresh[0])).clone()
        if "compiled" in mode or "cudnn" in mode:
            compile_each(model.dit.blocks, setting)
            if module is not None:
                compile_tokenizer(module, setting)
        plain = shown(frame(state, *fresh[0])).clone()
        figures["error_against_eager"] = relative_error(plain, expected)
        reset_peak(setting)
        run = frame
        if mode.endswith("graph"):
            run = Graphed(frame, state, *fresh[0], setting=setting)
            error = relative_error(shown(run(state, *fresh[0])), plain)
            if error > 0.05:
                raise ArithmeticError(f"the graph's frame is not the one without it: relative error {error:.3g}")
            figures["error_of_graph"] = error
        count = 0

        def step() -> None:
            nonlocal state, count
            result = run(state, *fresh[count % len(fresh)])
            state = result[1] if isinstance(result, tuple) else result
            count += 1

        step()
        ms = measure(step, setting)
    finite(rollout_of(state).last)
    flops = (config.steps + 1) * batch * flops_of(dit, preset, 1, WINDOW - 1)
    per_second = dit.actions_per_latent * 1000 / ms["median"]
    return {
        **figures,
        "ms_per_latent_frame": ms,
        "frames_per_second": per_second * batch,
        "frames_per_second_of_each": per_second,
        **(rate(flops, ms["median"]) if decoder == "dit" else {}),
        **peak_memory(setting),
        **graphs_compiled(setting),
    }


def rollout_of(state: RolloutState | FrameState) -> RolloutState:
    return state.rollout if isinstance(state, FrameState) else state


def shown(result: RolloutState | tuple[Tensor, FrameState]) -> Tensor:
    """What a frame function made: video, or the latent."""
    return result[0] if isinstance(result, tuple) else result.last


# --- tokenizers ------------------------------------------------------------------------------------------------------


def coder(name: str, side: Literal["encode", "decode"], mode: Mode, setting: Setting) -> dict[str, Any]:
    """One latent frame through an encoder or a decoder in the middle of a video."""
    preset = sized(PAPER_2B, setting)
    tokenizer, module = tokenizer_of(name, preset, setting)
    grid, k = grid_of(preset), tokenizer.temporal_factor
    one = (3, *preset.size) if side == "encode" else (tokenizer.latent_channels, grid.rows, grid.columns)
    length = k if side == "encode" else 1
    function = getattr(tokenizer, side)
    with torch.no_grad():
        _, state = function(setting.randn(1, 1 + 2 * length, *one).clamp(-1, 1))
        x = setting.randn(1, length, *one).clamp(-1, 1)
        expected = function(x, state)[0].clone()
        if mode.startswith("compiled"):
            compile_tokenizer(module, setting)
        figures = {"error_against_eager": relative_error(function(x, state)[0], expected)}
        reset_peak(setting)
        run = Graphed(function, x, state, setting=setting) if mode.endswith("graph") else function

        def step() -> None:
            nonlocal state
            _, state = run(x, state)

        step()
        ms = measure(step, setting)
    return {
        **figures,
        "ms_per_latent_frame": ms,
        "frames_per_second": k * 1000 / ms["median"],
        **({} if name != "wan" else rate(wan_flops(preset, side), ms["median"])),
        **peak_memory(setting),
        **graphs_compiled(setting),
    }


@lru_cache
def wan_flops(preset: Preset, side: Literal["encode", "decode"]) -> int:
    """Operations of one latent frame in the middle of a video, counted on the meta device."""
    assert isinstance(preset.tokenizer, WanConfig)
    with torch.device("meta"), torch.no_grad():
        tokenizer, grid = WanTokenizer(preset.tokenizer), grid_of(preset)
        one = (3, *preset.size) if side == "encode" else (tokenizer.latent_channels, grid.rows, grid.columns)
        length = tokenizer.temporal_factor if side == "encode" else 1
        function = getattr(tokenizer, side)
        _, state = function(torch.empty(1, 1 + 2 * length, *one))
        with FlopCounterMode(display=False) as counter:
            function(torch.empty(1, length, *one), state)
    return counter.get_total_flops()


def _arms() -> dict[str, Arm]:
    """What the goals need first."""
    arms: dict[str, Arm] = {"device": device}
    for decoder in ("dit", "small", "wan"):
        for mode in ("compiled-graph", "cudnn-graph"):
            arms[f"student-2b/{decoder}/b1/{mode}"] = partial(student, "2b", decoder, 1, mode)
    arms["parts-2b/student/b1"] = partial(parts, 1, 1, WINDOW - 1)
    for decoder in ("dit", "small", "wan"):
        for mode in ("eager", "graph", "compiled"):
            arms[f"student-2b/{decoder}/b1/{mode}"] = partial(student, "2b", decoder, 1, mode)
    for side in ("decode", "encode"):
        for mode in ("eager", "graph", "compiled-graph"):
            arms[f"wan/{side}/{mode}"] = partial(coder, "wan", side, mode)
    for mode in ("eager", "compiled-graph"):
        arms[f"small/decode/{mode}"] = partial(coder, "small", "decode", mode)
    for mode in ("eager", "compiled", "cudnn"):
        arms[f"teacher-2b/clip/{mode}"] = partial(teacher, "2b", mode)
    arms["teacher-2b/clip-with-wan/compiled"] = partial(teacher, "2b", "compiled", decoder=True)
    for decoder in ("dit", "small", "wan"):
        for mode in ("eager", "compiled-graph", "cudnn-graph"):
            arms[f"student-2b/{decoder}/b4/{mode}"] = partial(student, "2b", decoder, 4, mode)
    arms["parts-2b/student/b4"] = partial(parts, 4, 1, WINDOW - 1)
    arms["parts-2b/teacher/b1"] = partial(parts, 1, CLIP, 0)
    for mode in ("eager", "compiled"):
        arms[f"teacher-14b/pass/{mode}"] = partial(teacher, "14b", mode, steps=1)
    for mode in ("eager", "compiled-graph", "cudnn-graph"):
        arms[f"student-14b/dit/b1/{mode}"] = partial(student, "14b", "dit", 1, mode)
    return arms


ARMS = _arms()
