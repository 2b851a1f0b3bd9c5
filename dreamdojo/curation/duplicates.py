"""Near-duplicates across the corpus: the same film again, re-encoded, resized, trimmed or in another container."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np
from scipy.fft import dctn

_SIDE, _LOW = 32, 16


@dataclass(frozen=True, kw_only=True)
class DuplicateSettings:
    """What counts as the same film."""

    every: float = 0.25
    """Seconds between the frames of a clip that are compared."""
    max_distance: int = 32
    """Of the 256 bits of two frames' signatures, at most so many differ in the same picture."""
    min_share: float = 0.6
    """Share of a clip's frames that are seen in other recordings, at least."""


def signatures(frames: np.ndarray) -> np.ndarray:
    """256 bits per picture `t h w 3` uint8 -> `(t, 32)` uint8: signs of its low frequencies about their median."""
    from PIL import Image

    bits = []
    for frame in frames:
        grey = Image.fromarray(frame).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
        waves = np.asarray(dctn(np.asarray(grey, dtype=np.float32), norm="ortho"))
        low = waves[:_LOW, :_LOW].ravel()
        bits.append(low > np.median(low))
    return np.packbits(np.stack(bits), axis=1)


@dataclass
class DuplicateIndex:
    """Signatures of the clips that were kept so far.

    Only other recordings count: two moments of one recording that look alike are two moments, and whether anything
    happens between them is the business of motion.
    """

    settings: DuplicateSettings
    _buckets: dict[tuple[int, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    _all: list[np.ndarray] = field(default_factory=list)
    _owners: list[tuple[str, str]] = field(default_factory=list)

    def find(self, recording: str, clip: np.ndarray) -> tuple[str, float]:
        """The clip whose recording shows most of this one, and the share of frames found in any other recording.

        Args:
            recording: whose clip it is.
            clip: its signatures `(t, 32)`.
        """
        seen: Counter[str] = Counter()
        example: dict[str, str] = {}
        found = 0
        for signature in clip:
            near = {number for key in _bands(signature) for number in self._buckets.get(key, ())}
            hits: dict[str, str] = {}
            for number in sorted(near):
                owner, name = self._owners[number]
                if owner != recording and owner not in hits and self._is_near(number, signature):
                    hits[owner] = name
            found += bool(hits)
            for owner, name in hits.items():
                seen[owner] += 1
                example.setdefault(owner, name)
        if not seen:
            return "", 0.0
        owner = min(seen, key=lambda name: (-seen[name], name))
        return example[owner], found / len(clip)

    def add(self, recording: str, name: str, clip: np.ndarray) -> None:
        """Remember a clip that is kept."""
        for signature in clip:
            for key in _bands(signature):
                self._buckets[key].append(len(self._all))
            self._all.append(signature)
            self._owners.append((recording, name))

    def _is_near(self, number: int, signature: np.ndarray) -> bool:
        differing = int(np.bitwise_count(self._all[number] ^ signature).sum())
        return differing <= self.settings.max_distance


def _bands(signature: np.ndarray) -> list[tuple[int, int]]:
    """Number and bits of its 16 bands of 16 bits; most signatures that are near share one."""
    return list(enumerate(signature.view(">u2").tolist()))
