"""What 44,000 hours of video cost, for `docs/scale.md`: counted operations and measured rates times named assumptions.

Nothing is typed in twice: rates come from `benchmarks/results/`, operations and sizes from the presets, and what nobody
measured here is one of `ASSUMED`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from dreamdojo.latent_action.model import LatentActionModel
from dreamdojo.presets.paper import PAPER_2B, PAPER_14B
from dreamdojo.presets.preset import Preset
from dreamdojo.tokenizer.wan import WanConfig, WanTokenizer
from dreamdojo.world_model.budget import Grid, pass_flops

HOURS = 44_000


@dataclass(frozen=True)
class Assumption:
    """A number that nobody measured here."""

    value: float
    unit: str
    why: str


ASSUMED = {
    "source_rate": Assumption(4.0, "Mbit/s", "of H.264 at 480x640 and 30 fps, as downloaded"),
    "kept": Assumption(1.0, "share", "of the hours that curation keeps: the plan pays for all of them"),
    "frame_bytes": Assumption(30e3, "bytes", "of a curated 480x640 frame: H.264, crf 15, groups of 8, 10 fps"),
    "peak": Assumption(989e12, "operations/s", "of one H100 in dense bfloat16, as its maker states"),
    "training_share": Assumption(0.40, "of the peak", "in pre-training with FSDP and checkpointed activations"),
    "inference_share": Assumption(0.30, "of the peak", "in the latent action model's and the tokenizer's inference"),
    "gpus": Assumption(256, "GPUs", "for pre-training"),
    "inference_gpus": Assumption(64, "GPUs", "for latents and latent actions"),
    "cores": Assumption(960, "cores", "for curation: ten nodes of 96"),
    "passes": Assumption(1.0, "passes", "over the frames in pre-training; a clip brings 12 new ones"),
    "backward": Assumption(2.0, "forward passes", "that a backward pass costs; checkpointing adds another forward"),
}


def value(name: str) -> float:
    """An assumption's number."""
    return ASSUMED[name].value


@cache
def operations() -> dict[str, int]:
    """Operations of one forward pass of each network on its unit of work, counted without weights."""
    with torch.device("meta"):
        model, tokenizer = LatentActionModel(PAPER_2B.latent_action), WanTokenizer(WanConfig())
        pair = torch.empty(1, 2, 3, *(PAPER_2B.latent_action_size or PAPER_2B.size))
        clip = torch.empty(1, PAPER_2B.clip_frames or 13, 3, *PAPER_2B.size)
    counted = {}
    for name, run in (
        ("latent action of a pair", lambda: model.encode(pair)),
        ("latents of a clip", lambda: tokenizer.encode(clip)),
    ):
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            run()
        counted[name] = counter.get_total_flops()
    for preset in (PAPER_2B, PAPER_14B):
        factor = preset.tokenizer.spatial_factor
        grid = Grid(rows=preset.size[0] // factor, columns=preset.size[1] // factor)
        frames = 1 + ((preset.clip_frames or 13) - 1) // preset.tokenizer.temporal_factor
        counted[f"{preset.name}, a clip"] = pass_flops(preset.world_model, grid, frames=frames)
    return counted


def latent_bytes(preset: Preset) -> tuple[float, float]:
    """Bytes of cached latents per second of video: as overlapping clips, as published, and each frame once."""
    factor, k, clip = preset.tokenizer.spatial_factor, preset.tokenizer.temporal_factor, preset.clip_frames
    assert clip is not None
    row = preset.tokenizer.latent_channels * (preset.size[0] // factor) * (preset.size[1] // factor) * 2
    per_second = preset.rate / k
    return row * per_second * (1 + (clip - 1) // k), row * per_second


def plan(curation: Mapping[str, Any], scale: Mapping[str, Any]) -> str:
    """The tables of the plan.

    Args:
        curation: `results/curation.json`.
        scale: `results/scale.json`.
    """
    seconds, preset, counted = HOURS * 3600 * value("kept"), PAPER_2B, operations()
    frames = seconds * preset.rate
    new = (preset.clip_frames or 13) - 1
    overlapping, once = (seconds * each / 1e12 for each in latent_bytes(preset))
    lines = ["| storage | TB | from |", "| --- | --- | --- |"]
    for name, size, source in (
        ("video as downloaded", HOURS * 3600 * value("source_rate") * 1e6 / 8, "`source_rate`"),
        ("curated dataset", frames * value("frame_bytes"), "`frame_bytes`, the preset's rate"),
        ("latent actions", frames * preset.latent_action.latent_dim * 4, "float32, as cached"),
        ("latents, clips as published", overlapping * 1e12, f"every clip of {preset.clip_frames} anew, float16"),
        ("latents, each frame once", once * 1e12, "what a causal encoder would keep"),
    ):
        lines.append(f"| {name} | {size / 1e12:,.1f} | {source} |")

    speeds, loader = curation["metrics"]["speed"], scale["metrics"]["data"]["loader"]["480x640"]
    lines += ["", "| processors | core-hours | on `cores` | measured |", "| --- | --- | --- | --- |"]
    for name, hours in (
        ("decode once", HOURS / speeds["raw decode, h264"]["hours_per_core_hour"]),
        ("curate: judge and write", HOURS / speeds["judge and write everything, h264"]["hours_per_core_hour"]),
        ("one epoch through the loader at 480x640", seconds * preset.rate / loader["loader_fps_per_core"] / 3600),
    ):
        source = "scale.json" if "epoch" in name else "curation.json"
        lines.append(f"| {name} | {hours:,.0f} | {hours / value('cores'):,.1f} h | {source} |")

    lines += ["", "| GPUs | operations | GPU-hours | days |", "| --- | --- | --- | --- |"]
    training = 1 + value("backward") + 1
    clips = frames / new
    for name, total, share, gpus in (
        ("latent actions", frames * counted["latent action of a pair"], "inference_share", "inference_gpus"),
        (
            "latents, clips as published",
            frames / preset.tokenizer.temporal_factor * counted["latents of a clip"],
            "inference_share",
            "inference_gpus",
        ),
        ("pre-training, 2B", value("passes") * clips * training * counted["2b, a clip"], "training_share", "gpus"),
        ("pre-training, 14B", value("passes") * clips * training * counted["14b, a clip"], "training_share", "gpus"),
    ):
        hours = total / (value("peak") * value(share)) / 3600
        lines.append(
            f"| {name} | {total:.2g} | {hours:,.0f} | {hours / value(gpus) / 24:,.1f} on {value(gpus):,.0f} GPUs |"
        )
    lines += ["", "| counted | operations |", "| --- | --- |"]
    lines += [f"| {name} | {count:.3g} |" for name, count in counted.items()]
    lines += ["", "| assumed | value | what |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {one.value:,.12g} {one.unit} | {one.why} |" for name, one in ASSUMED.items()]
    return "\n".join(lines) + "\n"


def measured(scale: Mapping[str, Any]) -> str:
    """What the data pipeline does on the machine it was measured on, and in the simulation."""
    found = scale["metrics"]["data"]
    lines = [
        "| film | raw decode | raw to RGB | loader | share of decode | share of RGB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in found["loader"].items():
        rates = " | ".join(f"{one[f'{kind}_fps_per_core']:,.0f}" for kind in ("decode", "rgb", "loader"))
        lines.append(f"| {name} | {rates} | {one['share_of_decode']:.0%} | {one['share_of_rgb']:.0%} |")
    lines += [
        "",
        f"Frames per second of processor time, {scale['date']}, commit {scale['commit']}; "
        f"{scale['conditions']['data']['figures']}.",
        "",
    ]
    lines += [
        "| pool, segments | variance of batch means, 1 if independent | like the next batch | pairs from one segment |",
        "| --- | --- | --- | --- |",
    ]
    for name, one in found["shuffle"].items():
        lines.append(
            f"| {name.removeprefix('pool of ')} | {one['variance_of_batch_means_over_independent']:.2f} | "
            f"{one['correlation_with_next_batch']:.2f} | {one['pairs_from_one_segment']:.2%} |"
        )
    simulated = scale["metrics"]["pipeline"]
    node = simulated["node"]
    lines += [
        "",
        f"Simulated node: a batch every {node['batch_seconds']} s takes {node['segments_per_batch']} segments of "
        f"{node['decode_seconds']:.2f} s to decode on a core and {node['fetch_seconds']} s to fetch; one fetch in "
        f"{1 / node['stall_rate']:,.0f} stalls for {node['stall_seconds']:.0f} s, a worker dies every "
        f"{node['hours_to_death']:.0f} h and is back after {node['restart_seconds']:.0f} s, one segment in "
        f"{1 / node['corrupt']:,.0f} is corrupt.",
        "",
        "| pipeline | load without failures | trainer busy | stalls | deaths | left out |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in simulated["busy"].items():
        lines.append(
            f"| {name} | {one['load']:.2f} | {one['busy']:.1%} | {one['stalls']} | {one['deaths']} | "
            f"{one['left_out']} |"
        )
    return "\n".join(lines) + "\n"
