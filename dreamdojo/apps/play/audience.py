"""The pages that are connected: one operator, any number of viewers, all on the same session.

Everything here runs on the event loop. A page gets the newest frame and never a queue of old ones: at most
`frames_in_flight` frames travel to it unshown, and one that finds no room waits alone until a newer one replaces it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from dreamdojo.apps.play.driver import Driver, Timed
from dreamdojo.apps.play.messages import (
    BadMessageError,
    Command,
    Drive,
    Frame,
    Message,
    Offer,
    Parser,
    Pause,
    Ping,
    Reset,
    SessionState,
    Shown,
    Speed,
    Take,
    pack,
)
from dreamdojo.apps.play.settings import PlaySettings
from dreamdojo.apps.play.webrtc import FrameChannel

log = logging.getLogger(__name__)

CLOSE_REPLACED = 4001
"""WebSocket close code for a connection whose page has connected again."""
CLOSE_FLOODING = 4429
"""WebSocket close code for a connection that says more than anybody could mean."""

_LOST_AFTER = 0.3  # seconds after which a frame that was not shown does not take a place on a channel any more
_DEAD_AFTER = 3.0  # seconds without a frame shown after which a channel is not used any more


@dataclass(frozen=True, kw_only=True)
class Extension:
    """What an app adds to the session of `dreamdojo play`."""

    name: str
    """Address of its own files, below the page's, and its key in the hello."""
    folder: Path
    """Its own static files; the page loads `NAME.js` and `NAME.css` of them."""
    hello: Mapping[str, Any]
    """What the page is told of it."""
    messages: tuple[type[Message], ...]
    """What the page may say besides."""
    anyone: tuple[type[Message], ...]
    """Those of them that are taken from viewers too."""
    obey: Callable[[Message], None]
    """Does what such a message asks, on the event loop: it returns at once, or raises BadMessageError."""


class Member:
    """One connected page, and what is still to be sent to it."""

    def __init__(self, socket: WebSocket, page: str, settings: PlaySettings) -> None:
        self.page = page
        self._socket = socket
        self._frames_in_flight = settings.frames_in_flight
        self._most = settings.messages_per_second
        self._credit, self._credited = float(self._most), time.monotonic()
        self._notes: dict[str, dict[str, Any]] = {}
        self._frame: tuple[int, bytes] | None = None
        self._unshown: deque[tuple[int, float]] = deque()  # sequence, when it was sent
        self._offer: str | None = None
        self._channel: FrameChannel | None = None
        self._waits_since: float | None = None  # when the first frame after the last one shown was sent
        self._refused = 0
        self._close_code: int | None = None
        self._wake = asyncio.Event()

    def tell(self, note: dict[str, Any]) -> None:
        """Send a JSON message; of each type only the newest unsent one is kept."""
        self._notes[note["type"]] = note
        self._wake.set()

    def offer(self, sequence: int, packed: bytes) -> None:
        """Send a frame as soon as the page has room, unless a newer one comes first."""
        self._frame = (sequence, packed)
        self._wake.set()

    def shown(self, sequence: int) -> None:
        """The page has shown the frames up to `sequence`."""
        while self._unshown and self._unshown[0][0] <= sequence:
            self._unshown.popleft()
        self._waits_since = None
        self._wake.set()

    def offered(self, sdp: str) -> None:
        """The page offers a channel for frames.

        Raises:
            BadMessageError: if it did so before.
        """
        if self._offer is not None:
            raise BadMessageError("a second offer", "one per connection")
        self._offer = sdp
        self._wake.set()

    def hang_up(self, code: int) -> None:
        """Close the connection from this side."""
        self._close_code = code
        self._wake.set()

    async def send_all(self) -> None:
        """Send what there is to send, for as long as the page is there.

        Raises:
            WebSocketDisconnect: when it no longer is.
        """
        while self._close_code is None:
            await self._wake.wait()
            self._wake.clear()
            while self._notes:
                await self._sent(self._socket.send_text(json.dumps(self._notes.pop(next(iter(self._notes))))))
            if self._offer and self._channel is None:
                await self._answer(self._offer)
            if self._frame is not None and await self._has_room():
                (sequence, packed), self._frame = self._frame, None
                self._unshown.append((sequence, time.monotonic()))
                self._waits_since = self._waits_since or time.monotonic()
                if self._channel is None or not self._channel.send(packed):
                    await self._sent(self._socket.send_bytes(packed))
        await self._sent(self._socket.close(self._close_code))
        raise WebSocketDisconnect(self._close_code)

    @staticmethod
    async def _sent(message: Awaitable[None]) -> None:
        try:
            await message
        except RuntimeError as error:  # uvicorn's word for a page that has gone a moment ago
            raise WebSocketDisconnect from error

    async def close(self) -> None:
        """Let go of the channel, where there is one."""
        if self._channel is not None:
            await self._channel.close()

    async def _answer(self, offer: str) -> None:
        self._channel, self._offer = FrameChannel(), ""
        try:
            self.tell({"type": "answer", "sdp": await self._channel.answer(offer)})
        except Exception as error:  # a page may offer anything, and aiortc refuses it in many ways
            log.warning("page %r: refused an offer: %s", self.page, error)
            self.tell({"type": "error", "message": "offer: not understood", "expected": Offer.form})
            await self._channel.close()
            self._channel = None

    async def _has_room(self) -> bool:
        """Whether another frame may travel; on a channel, one that is not shown for long is lost, or all of it is."""
        now = time.monotonic()
        if self._channel is not None:
            if self._waits_since is not None and now - self._waits_since > _DEAD_AFTER:
                log.warning("page %r: nothing comes through over WebRTC, back to the WebSocket", self.page)
                await self._channel.close()
                self._channel = None
                self._unshown.clear()
            while self._unshown and now - self._unshown[0][1] > _LOST_AFTER:
                self._unshown.popleft()
        return len(self._unshown) < self._frames_in_flight

    async def hear_all(self, hear: Callable[[str], None]) -> None:
        """Give every text of the page to `hear`, and its `BadMessageError` back to the page.

        Raises:
            WebSocketDisconnect: when the page has gone.
        """
        while True:
            event = await self._socket.receive()
            if event["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(event["code"], event.get("reason"))
            if self._close_code is not None:
                return  # whoever was hung up on has no say any more
            if not self._within_rate():
                log.warning("page %r: more than %d messages a second, hung up", self.page, self._most)
                self.hang_up(CLOSE_FLOODING)
                continue
            try:
                if event.get("text") is None:
                    raise BadMessageError("a binary message", "JSON text")
                hear(event["text"])
            except BadMessageError as error:
                level = logging.INFO if self._refused else logging.WARNING  # one line for whoever goes on like this
                log.log(level, "page %r: refused %s", self.page, error)
                self._refused += 1
                self.tell({"type": "error", "message": error.found, "expected": error.expected})

    def _within_rate(self) -> bool:
        """A bucket of a second's messages, refilled as time goes on."""
        now = time.monotonic()
        self._credit = min(self._most, self._credit + (now - self._credited) * self._most) - 1
        self._credited = now
        return self._credit >= 0


class Audience:
    """Takes what pages say to the driver, and what the driver publishes to the pages."""

    def __init__(
        self, driver: Driver, settings: PlaySettings, hello: dict[str, Any], extension: Extension | None = None
    ) -> None:
        self._driver = driver
        self._extension = extension
        self._parser = Parser((*(extension.messages if extension else ()), *((Offer,) if settings.webrtc else ())))
        self._settings = settings
        self._hello = hello
        self._members: list[Member] = []
        self._operator: Member | None = None
        self._newest: tuple[int, bytes] | None = None
        self._num_starts = len(hello["starts"])

    async def serve(self, socket: WebSocket, page: str) -> None:
        """Stay with an accepted connection until it ends."""
        for other in [other for other in self._members if other.page == page]:
            self._leave(other)
            other.hang_up(CLOSE_REPLACED)
        member = self._join(socket, page)
        try:
            async with asyncio.TaskGroup() as talk:
                talk.create_task(member.send_all())
                talk.create_task(member.hear_all(lambda text: self._hear(member, text)))
        except* WebSocketDisconnect:
            log.debug("page %r left", page)
        finally:
            self._leave(member)
            await member.close()

    def publish(self, event: Timed | SessionState) -> None:
        """Pass on what the driver made."""
        if isinstance(event, SessionState):
            self._announce()
        elif event.delay > 0:
            asyncio.get_running_loop().call_later(event.delay, self._show, event.frame)
        else:
            self._show(event.frame)

    def _show(self, frame: Frame) -> None:
        # the last frames of a slow step may come due after the first of the next one: they have lost
        if self._newest is not None and frame.sequence < self._newest[0]:
            return
        self._newest = (frame.sequence, pack(frame))
        for member in self._members:
            member.offer(*self._newest)

    def _join(self, socket: WebSocket, page: str) -> Member:
        member = Member(socket, page, self._settings)
        self._members.append(member)
        if self._operator is None:
            self._operator = member
        member.tell(self._hello)
        if self._newest is not None:
            member.offer(*self._newest)
        self._driver.watch(True)
        self._announce()
        return member

    def _leave(self, member: Member) -> None:
        if member not in self._members:
            return
        self._members.remove(member)
        if self._operator is member:
            self._operator = None
            self._driver.release()
        self._driver.watch(bool(self._members))
        self._announce()

    def _announce(self) -> None:
        state = asdict(self._driver.state())
        for member in self._members:
            member.tell(
                {
                    "type": "session",
                    **state,
                    "driving": member is self._operator,
                    "driven": self._operator is not None,
                    "pages": len(self._members),
                }
            )

    def _hear(self, member: Member, text: str) -> None:
        message = self._parser.parse(text, max_bytes=self._settings.max_message_bytes)
        if isinstance(message, Ping):
            member.tell({"type": "pong", "time": message.time})
            return
        if isinstance(message, Shown):
            member.shown(message.sequence)
            return
        if isinstance(message, Offer):
            member.offered(message.sdp)
            return
        if self._extension is not None and isinstance(message, self._extension.anyone):
            self._extension.obey(message)
            self._announce()
            return
        if isinstance(message, Take) and self._operator is None:
            self._operator = member
        if self._operator is not member:
            whose = "another page drives" if self._operator is not None else "this page only watches"
            raise BadMessageError(
                f"{type(message).__name__.lower()}: {whose}", f"{Take.form}, granted when nobody drives"
            )
        self._obey(message)
        if not isinstance(message, Drive):
            self._announce()

    def _obey(self, message: Message) -> None:
        match message:
            case Drive():
                expected = len(self._driver.controls.columns)
                if len(message.values) != expected:
                    raise BadMessageError(
                        f"drive.values: {len(message.values)} numbers",
                        f"{expected}: {', '.join(self._driver.controls.embodiment.action_names()) or 'no actions'}",
                    )
                values = np.array(message.values, dtype=np.float32)
                self._driver.drive(Command(values=values, id=message.id, time=message.time), episode=message.episode)
            case Reset():
                if message.start is not None and message.start >= self._num_starts:
                    raise BadMessageError(f"reset.start: {message.start}", f"0 to {self._num_starts - 1}, or null")
                self._driver.reset(message.start)
            case Pause():
                self._driver.pause(message.paused)
            case Speed():
                self._driver.hurry(message.unlimited)
            case _ if self._extension is not None and isinstance(message, self._extension.messages):
                self._extension.obey(message)
