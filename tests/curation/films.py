"""Film whose truth is known: dojo episodes of a human hand, with true hand boxes and contacts."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from dreamdojo.curation.hands import Hand
from dreamdojo.dojo.actors import Actor
from dreamdojo.dojo.simulate import SimulateSettings, record_episode
from dreamdojo.dojo.simulation import UnstablePhysics
from dreamdojo.dojo.splits import seed_of

FPS = 10


@dataclass(frozen=True)
class Film:
    """An episode and its truth."""

    frames: np.ndarray
    boxes: list
    touched: np.ndarray
    places: np.ndarray
    """`(t, n, 3)` metres, where each object is."""

    def hands_at(self, picture: np.ndarray, seconds: float) -> list[Hand]:
        box = self.boxes[min(round(seconds * FPS), len(self.boxes) - 1)]
        return [] if box is None else [Hand(box=tuple(map(float, box)))]

    @property
    def is_contact(self) -> bool:
        """Whether the hand touches an object that it moves by 2 cm or more."""
        return bool((self.touched.any(axis=0) & (self._away().max(axis=0) > 0.02)).any())

    @property
    def is_free(self) -> bool:
        """Whether nothing is touched, and nothing moves."""
        return not self.touched.any() and float(self._away().max(initial=0.0)) < 0.005

    def part(self, first: int, last: int) -> "Film":
        """Frames `first` to `last`, without the last."""
        each = slice(first, last)
        return Film(self.frames[each], self.boxes[each], self.touched[each], self.places[each])

    def _away(self) -> np.ndarray:
        """`(t, n)` metres from where each object began."""
        return np.linalg.norm(self.places - self.places[0], axis=-1)

    @property
    def approach(self) -> "Film":
        """What comes before anything is touched or moves."""
        touched = np.flatnonzero(self.touched.any(axis=1) | (self._away() > 0.005).any(axis=1))
        return self.part(0, int(touched[0]) if len(touched) else len(self.frames))


@lru_cache(maxsize=64)
def film(index: int, task: str, *, split: str = "test", frames: int = 40, size: int = 192) -> Film:
    """The first stable episode from seed `index` of a split on."""
    settings = SimulateSettings(body="human", episodes=1, frames=frames, size=size, fps=FPS)
    simulation = settings.simulation()
    while True:
        seed = seed_of(split, index)
        try:
            simulation.reset(seed)
            actor = Actor(simulation, np.random.default_rng([seed, 1]), tasks={task: 1.0})
            record, _, _ = record_episode(simulation, actor, settings)
        except UnstablePhysics:
            index += 1_000_000
            continue
        places = np.stack([one.moment.object_poses[:, :3] for one in record])
        return Film(
            frames=np.stack([one.picture.rgb for one in record]),
            boxes=[one.picture.hand_box for one in record],
            touched=np.stack([one.moment.touched for one in record]),
            places=places,
        )
