"""A toy table top with known truth: an arm reaches in from above, coloured shapes lie still or are moved about."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SIZE, OBJECTS = 64, 2


@dataclass(frozen=True)
class ToyScenes:
    frames: Tensor  # n c h w uint8
    labels: Tensor  # n h w uint8: 1 table, 2 arm, 3.. objects
    effector: Tensor  # n 2, (u, v) in [0, 1]
    effector_visible: Tensor  # n
    objects: Tensor  # n o 2, NaN-free
    objects_visible: Tensor  # n o
    episodes: Tensor  # n


def toy_scenes(*, episodes: int, length: int, seed: int) -> ToyScenes:
    random = np.random.default_rng(seed)
    grid_v, grid_u = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE
    rows: dict[str, list] = {name: [] for name in ("frames", "labels", "effector", "visible", "objects", "shown", "id")}
    for episode in range(episodes):
        table = 0.3 + 0.4 * random.random(3) + 0.1 * (grid_u * random.normal() + grid_v * random.normal())[..., None]
        table = table + 0.02 * random.normal(size=(SIZE, SIZE, 1))
        colour, round_ = random.random((OBJECTS, 3)), random.random(OBJECTS) < 0.5
        radius = 0.06 + 0.05 * random.random(OBJECTS)
        objects = course(random, length, OBJECTS, 0.15, 0.85)
        objects[:, random.random(OBJECTS) < 0.4] = objects[:1, :1]
        objects[:, 1] += np.where(np.abs(objects[:, 1] - objects[:, 0]).max(-1, keepdims=True) < 0.01, 0.3, 0.0)
        effector = course(random, length, 1, 0.1, 0.9)[:, 0]
        if random.random() < 0.2:
            effector -= [0, 1.0]  # out of view
        for t in range(length):
            picture, labels = table.copy(), np.ones((SIZE, SIZE), np.uint8)
            for o in range(OBJECTS):
                du, dv = grid_u - objects[t, o, 0], grid_v - objects[t, o, 1]
                inside = du**2 + dv**2 < radius[o] ** 2 if round_[o] else np.maximum(abs(du), abs(dv)) < radius[o]
                picture[inside], labels[inside] = colour[o] * (1 - 2 * dv[inside, None]), 3 + o
            u, v = effector[t]
            arm = (abs(grid_u - u - 0.3 * (v - grid_v)) < 0.05) & (grid_v < v)
            tip = (abs(grid_u - u) < 0.07) & (abs(grid_v - v) < 0.035)
            picture[arm], picture[tip] = (0.2, 0.2, 0.25), (0.9, 0.5, 0.1)
            labels[arm | tip] = 2
            rows["frames"].append((255 * picture.clip(0, 1)).astype(np.uint8).transpose(2, 0, 1))
            rows["labels"].append(labels)
            rows["effector"].append(effector[t])
            rows["visible"].append(tip.sum() >= 6)
            rows["objects"].append(objects[t])
            rows["shown"].append([(labels == 3 + o).sum() >= 6 for o in range(OBJECTS)])
            rows["id"].append(episode)
    parts = {name: torch.from_numpy(np.stack(values)) for name, values in rows.items()}
    return ToyScenes(
        frames=parts["frames"],
        labels=parts["labels"],
        effector=parts["effector"].float(),
        effector_visible=parts["visible"],
        objects=parts["objects"].float(),
        objects_visible=parts["shown"],
        episodes=parts["id"],
    )


def course(random, length: int, count: int, low: float, high: float) -> np.ndarray:
    """`length count 2` smooth courses between two points of the table."""
    start, end = low + (high - low) * random.random((2, 1, count, 2))
    part = np.linspace(0, 1, length)[:, None, None]
    return start + (end - start) * (3 * part**2 - 2 * part**3)
