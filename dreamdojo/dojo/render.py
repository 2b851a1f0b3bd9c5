"""Pictures of a scene: colour, metric depth and segmentation from the head camera.

Vertices cost, not pixels: curved geoms are drawn coarsely and without multi-sampling. The lamp casts shadows, which
tell how high a hand is. Colour and depth come from one pass over the scene, segmentation from a second.
"""

# mujoco's names come from compiled modules without type stubs.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from dreamdojo.dojo.appearance import Look
from dreamdojo.dojo.bodies import BODIES
from dreamdojo.dojo.body import Body
from dreamdojo.dojo.difficulty import GENTLE
from dreamdojo.dojo.gl import Context
from dreamdojo.dojo.layout import CAMERA, draw_layout
from dreamdojo.dojo.scene import BODY, HAND, build_model, labels


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What the head camera sees at one moment."""

    rgb: np.ndarray
    """`(h, w, 3)` uint8."""
    depth: np.ndarray | None = None
    """`(h, w)` float32: distance along the camera's line of sight, metres."""
    segmentation: np.ndarray | None = None
    """`(h, w)` uint8: 0 background, 1 table, 2 body, 3 and up the objects."""
    hand_pixels: int | None = None
    """How many of the body's pixels belong to its hand; with segmentation only."""
    hand_box: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom of the visible hand in [0, 1]; with segmentation only, None where no hand is seen."""


class Renderer:
    """Draws every scene of one body at one size; scenes share it, also across threads."""

    def __init__(self, body: Body, size: int) -> None:
        model = build_model(body, draw_layout(0, GENTLE, body))
        self._lock = threading.Lock()
        self._gl = Context(size, size)
        self._shape = (size, size)
        self._texture = model.texture("table").id
        self._uploaded: Look | None = None
        self._labelled: mujoco.MjModel | None = None
        self._labels = np.empty(0, np.uint8)
        with self._gl:
            self._scene = mujoco.MjvScene(model, maxgeom=1000)
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
            mujoco.mjr_resizeOffscreen(size, size, self._context)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self._viewport = mujoco.MjrRect(0, 0, size, size)
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = model.camera(CAMERA).id

    def draw(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        look: Look,
        *,
        depth: bool = False,
        segmentation: bool = False,
    ) -> Picture:
        """A picture of `data`, whose positions must be up to date, in a scene that was built with `look`."""
        with self._lock, self._gl:
            if look is not self._uploaded:  # the table's pattern has to reach the graphics memory
                mujoco.mjr_uploadTexture(model, self._context, self._texture)
                self._uploaded = look
            everything = mujoco.mjtCatBit.mjCAT_ALL.value
            mujoco.mjv_updateScene(model, data, self._option, None, self._camera, everything, self._scene)
            flags, kinds = self._scene.flags, mujoco.mjtRndFlag
            flags[kinds.mjRND_SHADOW], flags[kinds.mjRND_REFLECTION] = True, False
            rgb = np.empty((*self._shape, 3), np.uint8)
            distance = np.empty(self._shape, np.float32) if depth else None
            mujoco.mjr_render(self._viewport, self._scene, self._context)
            mujoco.mjr_readPixels(rgb, distance, self._viewport, self._context)
            labelled = self._segment(model) if segmentation else None
        picture = Picture(
            rgb=np.ascontiguousarray(rgb[::-1]), depth=None if distance is None else _metres(distance[::-1], model)
        )
        if labelled is None:
            return picture
        hand = labelled == HAND
        labelled[hand] = BODY
        return replace(picture, segmentation=labelled, hand_pixels=int(hand.sum()), hand_box=_box_around(hand))

    def close(self) -> None:
        """Free the graphics memory; the renderer cannot draw afterwards."""
        with self._lock:
            with self._gl:
                self._context.free()
            self._gl.free()

    def _segment(self, model: mujoco.MjModel) -> np.ndarray:
        flags, kinds = self._scene.flags, mujoco.mjtRndFlag
        flags[kinds.mjRND_SEGMENT] = flags[kinds.mjRND_IDCOLOR] = True
        colours = np.empty((*self._shape, 3), np.uint8)
        try:
            mujoco.mjr_render(self._viewport, self._scene, self._context)
            mujoco.mjr_readPixels(colours, None, self._viewport, self._context)
        finally:
            flags[kinds.mjRND_SEGMENT] = flags[kinds.mjRND_IDCOLOR] = False
        # A pixel's colour is 1 + the number of the drawn geom, least significant byte first; 0 is empty.
        drawn = colours[::-1, :, 0].astype(np.intp) + 256 * colours[::-1, :, 1].astype(np.intp)
        return self._label_of_drawn(model)[drawn]

    def _label_of_drawn(self, model: mujoco.MjModel) -> np.ndarray:
        """Label by 1 + number of the drawn geom; MuJoCo draws the geoms of a model in one order."""
        if self._labelled is not model:
            of_geom = labels(model)
            self._labelled, self._labels = model, np.zeros(self._scene.ngeom + 1, np.uint8)
            for geom in self._scene.geoms[: self._scene.ngeom]:
                if geom.segid >= 0 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                    self._labels[geom.segid + 1] = of_geom[geom.objid]
        return self._labels


@functools.lru_cache(maxsize=8)
def shared_renderer(body: str, size: int) -> Renderer:
    """The process's one renderer of a body: making one takes tenths of a second and graphics memory."""
    return Renderer(BODIES[body], size)


def _box_around(mask: np.ndarray) -> tuple[float, float, float, float] | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    height, width = mask.shape
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height


def _metres(depth: np.ndarray, model: mujoco.MjModel) -> np.ndarray:
    """Depth buffer with 1 at the near plane and 0 at the far plane -> metres along the line of sight."""
    near = model.vis.map.znear * model.stat.extent
    far = model.vis.map.zfar * model.stat.extent
    return (near * far / (near + depth.astype(np.float64) * (far - near))).astype(np.float32)
