"""Packages that only some stages need: `pip install "dreamdojo[curation]"`."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from dreamdojo.errors import MissingDependencyError


def require(module: str, *, needed_for: str, extra: str = "curation") -> ModuleType:
    """A module of an extra.

    Raises:
        MissingDependencyError: naming what needs it and how to install it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f'{needed_for} needs {module}, which is not installed: pip install "dreamdojo[{extra}]", or leave it out.'
        ) from error
