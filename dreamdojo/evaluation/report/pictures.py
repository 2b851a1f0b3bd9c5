"""Pictures, videos and curves as bytes and SVG that fit inside one HTML file."""

from __future__ import annotations

import base64
import io
import math
import re
import tempfile
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from dreamdojo.errors import DataError
from dreamdojo.evaluation.report.blocks import Clip, Curves, Strip
from dreamdojo.video import VideoCodec, encode

VIEW_PIXELS = 256
"""Small frames are enlarged to about this height, by a whole factor: the video codec then leaves their pixels alone."""

ERROR_GAIN = 3.0
"""Absolute errors are multiplied by this before they are coloured."""

HOLD_SECONDS = 0.8
"""How long a looping video rests on its last frame."""

LINE_COLOURS = ("var(--line-1)", "var(--line-2)", "var(--line-3)", "var(--line-4)", "var(--line-5)")


def error_frames(
    predicted: UInt8[Tensor, "t c h w"], truth: UInt8[Tensor, "t c h w"], *, gain: float = ERROR_GAIN
) -> UInt8[Tensor, "t c h w"]:
    """Where a prediction is wrong: mean absolute error over channels, times `gain`, black to yellow."""
    error = (predicted.float() - truth.float()).abs().mean(dim=1) / 255
    coloured = colormaps["inferno"]((gain * error).clamp(0, 1).numpy())[..., :3]
    return rearrange(torch.from_numpy((255 * coloured).round().astype(np.uint8)), "t h w c -> t c h w")


def grid_columns(panels: int) -> int:
    """Panels in a row: two by two fills a phone as well as half a desk."""
    return math.ceil(math.sqrt(panels))


def clip_frames(clip: Clip) -> UInt8[np.ndarray, "t h w 3"]:
    """All panels of a clip in one picture per frame, enlarged, missing panels black.

    Raises:
        DataError: if the panels are not of one shape.
    """
    shapes = {panel.label: tuple(panel.frames.shape) for panel in clip.panels}
    if len(set(shapes.values())) != 1:
        raise DataError(f"clip {clip.title!r}: panels play in step and must have one shape, got {shapes}")
    columns = grid_columns(len(clip.panels))
    frames = [panel.frames for panel in clip.panels]
    frames += [torch.zeros_like(frames[0])] * (-len(frames) % columns)
    picture = rearrange(torch.stack(frames), "(r k) t c h w -> t (r h) (k w) c", k=columns).numpy()
    factor = max(1, round(VIEW_PIXELS / clip.panels[0].frames.shape[-2]))
    return enlarged(picture, factor)


def strip_picture(strip: Strip) -> UInt8[np.ndarray, "h w 3"]:
    """A contact strip: one row per panel, one column per chosen frame, at its own size.

    Raises:
        DataError: if a frame lies beyond the clip.
    """
    length = min(len(panel.frames) for panel in strip.clip.panels)
    if max(strip.frames) >= length:
        raise DataError(f"strip of {strip.clip.title!r}: frame {max(strip.frames)} of a clip of {length} frames")
    rows = torch.stack([panel.frames[list(strip.frames)] for panel in strip.clip.panels])
    return rearrange(rows, "r k c h w -> (r h) (k w) c").numpy()


def enlarged(picture: UInt8[np.ndarray, "*t h w c"], factor: int) -> UInt8[np.ndarray, "*t h2 w2 c"]:
    """Every pixel repeated `factor` times along both sides."""
    return picture.repeat(factor, axis=-3).repeat(factor, axis=-2)


def png_uri(picture: UInt8[np.ndarray, "h w 3"]) -> str:
    """A picture as a `data:` address."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def mp4_uri(frames: UInt8[np.ndarray, "t h w 3"], *, fps: float) -> str:
    """A video as a `data:` address: H.264, which every browser plays; it rests a moment on its last frame."""
    rest = frames[-1:].repeat(max(1, round(HOLD_SECONDS * fps)), axis=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        encode(path, np.concatenate((frames, rest)), fps, VideoCodec(crf=18, preset="medium", gop=32))
        return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


def curves_svg(curves: Curves) -> str:
    """Curves as SVG whose colours and type are those of the page around it, by day and by night."""
    loud = [name for name in curves.lines if name not in curves.quiet]
    # matplotlib only knows fixed colours: draw with one placeholder per role and replace them in the text
    ink, rule = "#010203", "#010204"
    role_by_placeholder = {ink: "var(--ink-2)", rule: "var(--rule)"}
    colours = dict.fromkeys(curves.quiet, ink)
    for index, name in enumerate(loud):
        colours[name] = f"#0103{index:02x}"
        role_by_placeholder[colours[name]] = LINE_COLOURS[index % len(LINE_COLOURS)]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": repr(curves), "font.size": 11}):
        figure = Figure(figsize=(5.2, 3.3), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for name, points in curves.lines.items():
            mean, low, high = (np.array([getattr(point, end) for point in points]) for end in ("mean", "low", "high"))
            quiet = name in curves.quiet
            style, width, wash = ((0, (4, 3)), 1.4, 0.08) if quiet else ("-", 2.2, 0.16)
            axes.plot(curves.x, mean, color=colours[name], linestyle=style, linewidth=width)
            axes.fill_between(curves.x, low, high, color=colours[name], alpha=wash, linewidth=0)
        _label_ends(axes, curves, colours)
        axes.set_xlabel(curves.x_label, color=ink)
        axes.set_title(curves.y_label, color=ink, loc="left", fontsize=11, pad=10)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 4, 5, 8, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.tick_params(colors=ink, length=0)
        axes.grid(axis="y", color=rule, linewidth=0.8)
        for side in axes.spines.values():
            side.set_visible(False)
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for placeholder, role in role_by_placeholder.items():
        svg = svg.replace(placeholder, role)
    svg = re.sub(r"font: ([\d.]+)px[^;\"]*", r"font: \1px var(--sans)", svg)
    svg = re.sub(r'<svg [^>]*viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" role="img">', svg, count=1)
    return re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)


def _label_ends(axes: Axes, curves: Curves, colours: dict[str, str]) -> None:
    """Write each line's name beside its end, moved apart where ends meet."""
    ends = {name: points[-1].mean for name, points in curves.lines.items() if math.isfinite(points[-1].mean)}
    low, high = axes.get_ylim()
    gap = 0.075 * (high - low)
    order = sorted(ends, key=lambda name: ends[name])
    places: list[float] = []
    for name in order:
        places.append(max(ends[name], places[-1] + gap) if places else ends[name])
    shift = (sum(places) - sum(ends[name] for name in order)) / max(len(order), 1)
    for name, place in zip(order, places, strict=True):
        axes.annotate(
            name,
            (curves.x[-1], place - shift),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=colours[name],
            annotation_clip=False,
        )
