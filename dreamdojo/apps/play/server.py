"""The web server of `dreamdojo play`."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response, WebSocket
from fastapi.staticfiles import StaticFiles
from PIL import Image

from dreamdojo.apps.play.audience import Audience
from dreamdojo.apps.play.controls import Controls
from dreamdojo.apps.play.driver import Driver, Timed
from dreamdojo.apps.play.messages import SessionState
from dreamdojo.apps.play.settings import PlaySettings, PlayWorld, Start, is_loopback
from dreamdojo.errors import ConfigError

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}
CLOSE_FOREIGN = 4403
"""WebSocket close code for a page that came from another site."""


def create_app(worlds: Mapping[str, PlayWorld], starts: Sequence[Start], settings: PlaySettings) -> FastAPI:
    """The page and its WebSocket. The worlds are stepped from a thread that lives as long as the app runs.

    Raises:
        ConfigError: if the worlds cannot be driven together, or a start does not say what a world needs.
    """
    _check(worlds, starts)
    first = next(iter(worlds.values())).world
    controls = Controls.of(first.embodiment, screen_right=settings.screen_right, screen_up=settings.screen_up)
    driver = Driver(worlds, starts, settings, controls)
    audience = Audience(driver, settings, _hello(worlds, starts, settings, driver))
    thumbnails = [_png(start) for start in starts]

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def publish(event: Timed | SessionState) -> None:
            with contextlib.suppress(RuntimeError):  # a second Ctrl-C ends the loop first: nobody is left to show it to
                loop.call_soon_threadsafe(audience.publish, event)

        thread = threading.Thread(target=driver.run, args=(publish,), name="dreamdojo-play", daemon=True)
        thread.start()
        yield
        driver.stop()
        await asyncio.to_thread(thread.join)

    app = FastAPI(title="DreamDojo play", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def add_headers(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await answer(request)
        response.headers.update(HEADERS)
        return response

    @app.get("/starts/{number}.png")
    async def thumbnail(number: int) -> Response:
        if not 0 <= number < len(thumbnails):
            raise HTTPException(404, f"no start {number}; there are {len(thumbnails)}")
        return Response(thumbnails[number], media_type="image/png")

    @app.websocket("/ws")
    async def connect(websocket: WebSocket, page: Annotated[str, Query(max_length=64)] = "") -> None:
        await websocket.accept()
        if not _is_own_page(websocket, settings):
            log.warning("refused a page from %s", websocket.headers.get("origin"))
            await websocket.close(CLOSE_FOREIGN, "the page comes from another site")
            return
        await audience.serve(websocket, page or f"{websocket.client}")

    @app.websocket("/{path:path}")
    async def nowhere(websocket: WebSocket, path: str) -> None:
        log.info("refused a connection to /%r", path)
        await websocket.close()

    app.mount("/", StaticFiles(directory=STATIC, html=True))
    return app


def serve(
    worlds: Mapping[str, PlayWorld],
    starts: Sequence[Start],
    settings: PlaySettings,
    *,
    announce: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serve until Ctrl-C, or until `stop` is set; `announce` gets the address as soon as the page answers.

    Raises:
        ConfigError: if the worlds or starts do not fit together, or the address cannot be listened on.
    """
    config = uvicorn.Config(
        create_app(worlds, starts, settings),
        log_level="warning",
        ws_max_size=4 * settings.max_message_bytes,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=2,
    )
    with _listen(settings) as listener:
        url = f"http://{_netloc(settings.host, listener.getsockname()[1])}"
        server = _Server(config, lambda: (announce or _log_address)(url), stop or threading.Event())
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, announce: Callable[[], None], stop: threading.Event) -> None:
        super().__init__(config)
        self._announce = announce
        self._stop = stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._stop.is_set()


def _log_address(url: str) -> None:
    log.info("driving at %s", url)


def _listen(settings: PlaySettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host.strip("[]"), settings.port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {_netloc(settings.host, settings.port)}: {error}. Give another port (0: a free one)."
        ) from error
    return listener


def _netloc(host: str, port: int) -> str:
    bare = host.strip("[]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def _is_own_page(websocket: WebSocket, settings: PlaySettings) -> bool:
    """Whether a browser's page came from this server: any site can otherwise open a WebSocket to this machine."""
    origin = websocket.headers.get("origin")
    if origin is None:
        return True  # not a browser
    host = websocket.headers.get("host", "")
    if urlsplit(origin).netloc != host:
        return False
    return settings.allow_remote or is_loopback(urlsplit(f"//{host}").hostname or "")


def _check(worlds: Mapping[str, PlayWorld], starts: Sequence[Start]) -> None:
    if not worlds or not starts:
        raise ConfigError(f"expected at least one world and one start, got {len(worlds)} and {len(starts)}")
    (name, first), *others = worlds.items()
    for other_name, other in others:
        if first.world.embodiment.action != other.world.embodiment.action:
            raise ConfigError(
                f"worlds driven together need the same action fields and ranges, got {name}: "
                f"{first.world.embodiment.action} and {other_name}: {other.world.embodiment.action}"
            )
        if first.world.fps != other.world.fps:
            raise ConfigError(
                f"worlds driven together need the same rate, got {name}: {first.world.fps} Hz and {other_name}: "
                f"{other.world.fps} Hz"
            )
    for name, play in worlds.items():
        for start in starts:
            if play.from_observation and start.observation is None:
                raise ConfigError(f"world {name} starts from an observation, and start {start.name!r} has none")


def _hello(
    worlds: Mapping[str, PlayWorld], starts: Sequence[Start], settings: PlaySettings, driver: Driver
) -> dict[str, Any]:
    embodiment = driver.controls.embodiment
    return {
        "type": "hello",
        "session": secrets.token_hex(8),
        "media_type": "image/jpeg" if settings.encoding == "jpeg" else "image/webp",
        "embodiment": embodiment.name,
        "rate": driver.rate,
        "controls": [asdict(column) for column in driver.controls.columns],
        "worlds": [
            {
                "name": name,
                "label": play.label,
                "cameras": list(play.picture_names),
                "depth": 0 if play.depth_span is None else len(play.world.cameras),
                "state": play.world.embodiment.state_names(),
            }
            for name, play in worlds.items()
        ],
        "starts": [{"name": start.name, "thumbnail": f"starts/{i}.png"} for i, start in enumerate(starts)],
    }


def _png(start: Start) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(start.thumbnail).save(buffer, "PNG")
    return buffer.getvalue()
