"""What the user names on the command line as `module:name`: a function, a class or an object of their own."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from dreamdojo.errors import ConfigError


def find_function(name: str) -> Callable[..., Any]:
    """The function that `module:function` names.

    Raises:
        ConfigError: if it is not so written, or there is none.
    """
    module, _, attribute = name.partition(":")
    if not (module and attribute):
        raise ConfigError(f"expected module:function, got {name!r}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{name}: expected module:function to import, found {error}. Is its folder on PYTHONPATH?"
        ) from error
