"""Frames over a WebRTC data channel, where nothing waits for what was lost; everything else stays on the WebSocket.

The page makes an offer over its WebSocket and gets the answer there. Frames are packed as on the WebSocket. The channel
is neither ordered nor reliable: what is lost on the way is replaced by the next frame.
"""

from __future__ import annotations

from typing import Any

from dreamdojo.errors import MissingDependencyError

LARGEST = 60_000
"""Bytes of a frame, and of what waits to be sent, beyond which a frame goes over the WebSocket."""


class FrameChannel:
    """The server's end of one page's channel; of the event loop."""

    def __init__(self) -> None:
        """Prepare to be offered a channel. Nobody else is asked for addresses: both ends must see each other."""
        aiortc = require_aiortc()
        self._description = aiortc.RTCSessionDescription
        self._connection = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        self._channel: Any = None
        self._connection.on("datachannel", self._opened)

    async def answer(self, sdp: str) -> str:
        """The answer to a page's offer, both as SDP has it. What is no offer raises what aiortc makes of it."""
        await self._connection.setRemoteDescription(self._description(sdp=sdp, type="offer"))
        await self._connection.setLocalDescription(await self._connection.createAnswer())
        return self._connection.localDescription.sdp

    def send(self, packed: bytes) -> bool:
        """Send a frame; False if it has to go another way."""
        channel = self._channel
        if channel is None or channel.readyState != "open" or max(len(packed), channel.bufferedAmount) > LARGEST:
            return False
        channel.send(packed)
        return True

    async def close(self) -> None:
        """Let go of the ports."""
        self._channel = None
        await self._connection.close()

    def _opened(self, channel: Any) -> None:
        self._channel = channel


def require_aiortc() -> Any:
    """The package aiortc.

    Raises:
        MissingDependencyError: saying how to get it.
    """
    try:
        import aiortc  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependencyError(
            "frames travel over WebRTC with the package aiortc, which is not installed. Run: pip install "
            "'dreamdojo[webrtc]'; without --webrtc they take the WebSocket"
        ) from error
    return aiortc
