"""How much memory a device has left, and a refusal with numbers where something cannot fit."""

from __future__ import annotations

from pathlib import Path

import torch

from dreamdojo.errors import ConfigError

GIB = 2**30


def available_memory(device: torch.device) -> int | None:
    """Bytes that can still be taken on `device`; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = {name: value.split()[0] for name, _, value in (line.partition(":") for line in lines)}
    free = int(kilobytes["MemAvailable"]) * 1024
    limit = _container_limit()
    return free if limit is None else min(free, limit)


def require_memory(needed: int, device: torch.device, *, what: str, advice: str) -> None:
    """Refuse what cannot fit, before anything is loaded.

    Raises:
        ConfigError: naming what is needed, what is there, and what to do.
    """
    there = available_memory(device)
    if there is not None and needed > there:
        raise ConfigError(
            f"{what} needs about {needed / GIB:.1f} GiB, {there / GIB:.1f} GiB are free on {device}. {advice}"
        )


def _container_limit() -> int | None:
    """What a control group still allows, where one limits this process."""
    try:
        root = Path("/sys/fs/cgroup")
        limit = (root / "memory.max").read_text().strip()
        used = int((root / "memory.current").read_text())
        cached = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) - used + int(cached.get("inactive_file", 0))
