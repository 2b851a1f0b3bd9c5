"""Who runs the workers: processes of this machine, or a Ray cluster. Both lose one video to a crash, not the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal


def engine(name: Literal["local", "ray"]) -> Callable[..., Iterator[tuple[int, Any]]]:
    """`run_local` or `run_ray`, which take the same arguments; Ray is imported only where it is asked for."""
    if name == "local":
        from dreamdojo.curation.engines.local import run_local

        return run_local
    from dreamdojo.curation.engines.ray import run_ray

    return run_ray
