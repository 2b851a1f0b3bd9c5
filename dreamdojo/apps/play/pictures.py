"""Pictures as bytes, in a session's encoding."""

from __future__ import annotations

import io

from PIL import Image
from torch import Tensor

from dreamdojo.apps.play.settings import PlaySettings


def encode(picture: Tensor, settings: PlaySettings, *, scale: float = 1.0) -> bytes:
    """A picture `c h w` uint8 in the session's encoding; with a `scale` below 1, of so much smaller sides."""
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().cpu().numpy())
    if scale < 1:
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    buffer = io.BytesIO()
    if settings.encoding == "webp-lossless":
        image.save(buffer, "WEBP", lossless=True, quality=0, method=0)
    elif settings.encoding == "webp":
        image.save(buffer, "WEBP", quality=settings.quality, method=0)
    else:
        image.save(buffer, "JPEG", quality=settings.quality, subsampling=0)
    return buffer.getvalue()
