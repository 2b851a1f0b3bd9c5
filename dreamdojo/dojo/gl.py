"""Which OpenGL draws the pictures, chosen before MuJoCo is imported.

MuJoCo reads the environment variable `MUJOCO_GL` when it is imported. On Linux an unset variable means "open a window",
which fails on every server, so this module sets it to the first of EGL and OSMesa whose library loads. A variable that
is already set, and other systems, are left alone.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from types import TracebackType
from typing import Any

from dreamdojo.errors import MissingDependencyError

GL_LIBRARIES = {"egl": ("libEGL.so.1", "libEGL.so"), "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")}
"""Backend -> file names its library goes by, in order of preference."""

INSTALL_GL = "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri libosmesa6"
INSTALL_MUJOCO = 'pip install "dreamdojo[dojo]"'


def require_packages() -> None:
    """Check that the packages of the `dojo` extra are installed.

    Raises:
        MissingDependencyError: naming the first that is not, and the install line.
    """
    for package in ("mujoco", "gymnasium"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"dreamdojo.dojo needs the package {package}, which is not installed. Run: {INSTALL_MUJOCO}"
            )


def choose_backend() -> str | None:
    """Set `MUJOCO_GL` where it is unset and a headless backend loads; return the value in force, or None."""
    if os.environ.get("MUJOCO_GL"):
        return os.environ["MUJOCO_GL"]
    if not sys.platform.startswith("linux"):
        return None
    for backend, names in GL_LIBRARIES.items():
        if any(_loads(name) for name in names):
            os.environ["MUJOCO_GL"] = backend
            return backend
    return None


class Context:
    """An OpenGL context without a window, made current for the length of a `with` block, from any thread.

    Raises:
        MissingDependencyError: if no GL library can be loaded, or the one that is has no working driver.
    """

    def __init__(self, width: int, height: int) -> None:
        if choose_backend() is None and sys.platform.startswith("linux"):
            tried = ", ".join(name for names in GL_LIBRARIES.values() for name in names)
            raise MissingDependencyError(
                f"drawing needs OpenGL without a window, but none of {tried} can be loaded. Run: {INSTALL_GL}"
            )
        try:
            from mujoco.rendering.classic.gl_context import GLContext  # its backend is fixed at import

            self._context: Any = GLContext(width, height)
        except (ImportError, RuntimeError, AttributeError, OSError) as error:
            raise MissingDependencyError(
                f"OpenGL could not be started with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r}: {error}. "
                f"Run: {INSTALL_GL}"
            ) from error

    def __enter__(self) -> None:
        self._current = self._context.as_current()
        self._current.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._current.__exit__(kind, error, trace)

    def free(self) -> None:
        """Give the context back to the driver."""
        self._context.free()


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
