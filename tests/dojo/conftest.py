"""MuJoCo reads which OpenGL to use when it is imported, and some tests import it first."""

from dreamdojo.dojo.gl import choose_backend

choose_backend()
