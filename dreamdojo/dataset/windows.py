"""Windows of episodes for training: several sources and embodiments mixed into one batch.

The batch of step `i` is a function of `(seed, i)` alone, so a resumed run sees what an uninterrupted one would have, on
any number of workers and processes. Sources that are streamed are drawn from a few segments at a time (`MovingPool`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dreamdojo.dataset.memory import Room
from dreamdojo.dataset.stream import EpisodeStream, MovingPool
from dreamdojo.errors import ConfigError, DataError

Arrays = Mapping[str, np.ndarray]
"""Arrays of one episode, aligned on axis 0 (time); they may be memory maps."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Episodes of one embodiment and how often they are drawn."""

    embodiment: str
    """Whose actions the episodes carry."""
    episodes: Sequence[Arrays] | EpisodeStream
    """One mapping per episode, all with the same keys; or a stream."""
    weight: float = 1.0
    """Relative share of the samples of a batch."""


@dataclass(frozen=True)
class Windows:
    """The samples of a batch, source by source, each key stacked on axis 0 with time on axis 1.

    Samples of different embodiments have actions of different widths, so they stay apart; whoever wants one tensor of
    something they share concatenates it.
    """

    by_embodiment: Mapping[str, Mapping[str, Tensor]]

    def cat(self, key: str) -> Tensor:
        """What all samples share, as one tensor, in the order of `by_embodiment`."""
        return torch.cat([samples[key] for samples in self.by_embodiment.values()])


class WindowSampler:
    """Draws random windows of `length` rows, `stride` rows apart, uniformly over all windows of a source."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        length: int,
        batch_size: int,
        seed: int,
        strides: Sequence[int] = (1,),
        reference: str | None = None,
        lanes: int = 1,
    ) -> None:
        """Prepare the draw. With `reference`, a key, one row of it comes along as `reference`: any of the episode up to
        the window's first. Streams are shared out among `lanes`, the micro-batches of a step.

        Raises:
            ConfigError: if no weight is positive.
            DataError: if a source has no episode that is long enough.
        """
        self.sources = [source for source in sources if source.weight > 0]
        if not self.sources:
            raise ConfigError("expected at least one source with a positive weight, got none")
        self.length, self.batch_size, self.seed, self.strides = length, batch_size, seed, tuple(strides)
        self.reference = reference
        self._room = Room()
        self._shares = np.array([source.weight for source in self.sources]) / sum(s.weight for s in self.sources)
        span = (length - 1) * max(self.strides) + 1
        self._starts: list[np.ndarray] = []
        self._cumulative: list[np.ndarray] = []
        self._pools: list[MovingPool | None] = []
        for number, source in enumerate(self.sources):
            stream = source.episodes if isinstance(source.episodes, EpisodeStream) else None
            rows = (
                np.array([len(next(iter(each.values()))) for each in source.episodes])
                if stream is None
                else stream.rows
            )
            starts = np.maximum(rows - span + 1, 0)
            if starts.sum() == 0:
                raise DataError(
                    f"{source.embodiment}: expected at least one episode of {span} rows, the longest of "
                    f"{len(rows)} has {rows.max(initial=0)}. Record longer episodes or use a shorter window."
                )
            self._starts.append(starts)
            self._cumulative.append(np.cumsum(starts))
            pool = None
            if stream is not None:
                pool = MovingPool(stream.files, starts > 0, size=stream.pool, lanes=lanes, seed=(seed, number))
            self._pools.append(pool)

    def __call__(self, step: int) -> Windows:
        """The batch of one step."""
        random = np.random.default_rng([self.seed, step])
        counts = random.multinomial(self.batch_size, self._shares)
        samples: dict[str, dict[str, list[np.ndarray]]] = {}
        for number, count in enumerate(counts):
            source, places, cumulative = self.sources[number], *self._at_hand(number, step)
            for _ in range(count):
                found, start = _draw(random, cumulative)
                while isinstance(source.episodes, EpisodeStream) and not source.episodes.readable(int(places[found])):
                    places = np.delete(places, found)
                    if not len(places):
                        raise DataError(
                            f"{source.embodiment}: expected an episode that decodes, found none among those at hand"
                        )
                    cumulative = np.cumsum(self._starts[number][places])
                    found, start = _draw(random, cumulative)
                index = int(places[found])
                stride = int(random.choice(self.strides))
                episode = source.episodes[index]
                rows = slice(start, start + (self.length - 1) * stride + 1, stride)
                drawn = {key: array[rows] for key, array in episode.items()}
                if self.reference is not None:
                    earlier = int(random.integers(start + 1))
                    drawn["reference"] = episode[self.reference][earlier : earlier + 1]
                into = samples.setdefault(source.embodiment, {key: [] for key in drawn})
                for key, array in drawn.items():
                    into[key].append(array)
        return Windows(
            {
                name: {key: torch.from_numpy(self._stacked(parts)) for key, parts in keys.items()}
                for name, keys in samples.items()
            }
        )

    def _stacked(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        first = parts[0]
        return np.stack(parts, out=self._room.array((len(parts), *first.shape), first.dtype))

    def _at_hand(self, number: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The episodes of a source that a step draws from, and their windows, counted up."""
        pool, stream, starts = self._pools[number], self.sources[number].episodes, self._starts[number]
        if pool is None or not isinstance(stream, EpisodeStream):
            return np.arange(len(starts)), self._cumulative[number]
        used = self.batch_size * self._shares[number] * self.length / stream.rows.mean()
        places, wanted = pool.at(step, used, stream.ahead)
        stream.hold(wanted.tolist())
        return places, np.cumsum(starts[places])


def _draw(random: np.random.Generator, cumulative: np.ndarray) -> tuple[int, int]:
    """Which of several episodes, and the first row of a window in it."""
    position = int(random.integers(cumulative[-1]))
    found = int(np.searchsorted(cumulative, position, side="right"))
    return found, position - (int(cumulative[found - 1]) if found else 0)
