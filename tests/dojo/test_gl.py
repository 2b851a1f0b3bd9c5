from __future__ import annotations

import subprocess
import sys

import pytest

import dreamdojo.dojo
from dreamdojo.dojo import gl
from dreamdojo.errors import MissingDependencyError


def test_a_machine_without_gl_is_told_what_to_install(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(gl, "GL_LIBRARIES", {"egl": ("libAbsent.so.1",), "osmesa": ("libMissing.so.8",)})
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(MissingDependencyError) as error:
        gl.Context(8, 8)
    assert "libAbsent.so.1" in str(error.value)
    assert "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri libosmesa6" in str(error.value)


def test_a_driver_that_does_not_start_is_told_the_same(monkeypatch):
    import mujoco.rendering.classic.gl_context as backend

    def broken(width, height):
        raise RuntimeError("no display")

    monkeypatch.setattr(backend, "GLContext", broken)
    with pytest.raises(MissingDependencyError, match=r"no display.*apt-get install"):
        gl.Context(8, 8)


def test_the_first_library_that_loads_is_chosen(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(gl, "_loads", lambda name: "OSMesa" in name)
    assert gl.choose_backend() == "osmesa"
    monkeypatch.setenv("MUJOCO_GL", "egl")
    assert gl.choose_backend() == "egl"


@pytest.mark.parametrize("package", ["mujoco", "gymnasium"])
def test_importing_the_dojo_without_its_packages_names_the_extra(package):
    code = f"import sys; sys.modules[{package!r}] = None; import dreamdojo.dojo"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode
    assert "MissingDependencyError" in result.stderr
    assert 'pip install "dreamdojo[dojo]"' in result.stderr


def test_every_public_name_can_be_imported():
    assert all(getattr(dreamdojo.dojo, name) for name in dreamdojo.dojo.__all__)
    assert sorted(dreamdojo.dojo.__all__) == sorted(set(dreamdojo.dojo._HOME))
