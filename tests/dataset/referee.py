"""LeRobot 0.4.4 reads and writes datasets; runs in an environment of its own (`referee_requirements.txt`).

    python referee.py read ROOT OUT.npz     every row of the dataset, through LeRobot's own loader
    python referee.py write ROOT            a dataset as LeRobot itself writes it

Knows nothing of dreamdojo.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

# torchvision without its compiled part: LeRobot imports it, and it registers kernels for operators that must exist.
_LIBRARY = torch.library.Library("torchvision", "DEF")
_LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402

LENGTHS = (14, 9)


def read(root: Path, out: Path) -> None:
    """Every row, stacked by key; pictures as uint8 `n h w 3`."""
    dataset = LeRobotDataset("local/dataset", root=root)
    rows: list[dict[str, Any]] = [dataset[index] for index in range(len(dataset))]
    arrays: dict[str, np.ndarray] = {}
    for key in rows[0]:
        values = [row[key] for row in rows]
        if key in dataset.meta.camera_keys:
            pictures = torch.stack(values).permute(0, 2, 3, 1)
            arrays[key] = (pictures * 255).round().to(torch.uint8).numpy()
        else:
            arrays[key] = np.array(values) if isinstance(values[0], str) else torch.stack(values).numpy()
    for key, stats in (dataset.meta.stats or {}).items():
        arrays |= {f"stats/{key}/{name}": np.asarray(value) for name, value in stats.items()}
    arrays["num_episodes"] = np.array(dataset.meta.total_episodes)
    arrays["fps"] = np.array(dataset.fps)
    np.savez(out, **arrays)


def write(root: Path) -> None:
    """Two episodes: a grey level per frame and an action that is its number."""
    features = {
        "observation.images.head": {"dtype": "video", "shape": (32, 48, 3), "names": ["height", "width", "channels"]},
        "observation.state": {"dtype": "float32", "shape": (2,), "names": ["x", "y"]},
        "action": {"dtype": "float32", "shape": (2,), "names": {"motors": ["x", "y"]}},
    }
    dataset = LeRobotDataset.create("local/dataset", fps=10, root=root, features=features, robot_type="toy_robot")
    for episode, length in enumerate(LENGTHS):
        for frame in range(length):
            number = np.full(2, 100 * episode + frame, dtype=np.float32)
            picture = np.full((32, 48, 3), 40 + 60 * episode + 8 * frame, dtype=np.uint8)
            task = ("push", "lift")[episode]
            row = {"observation.images.head": picture, "observation.state": -number, "action": number, "task": task}
            dataset.add_frame(row)
        dataset.save_episode()
    dataset.finalize()


if __name__ == "__main__":
    command, root = sys.argv[1], Path(sys.argv[2])
    if command == "read":
        read(root, Path(sys.argv[3]))
    else:
        write(root)
