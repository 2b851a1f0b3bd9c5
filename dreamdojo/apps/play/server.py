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

from dreamdojo.apps.play.audience import Audience, Extension
from dreamdojo.apps.play.driver import Driver, Timed
from dreamdojo.apps.play.messages import SessionState
from dreamdojo.apps.play.settings import PlaySettings, PlayWorld, Start, is_loopback
from dreamdojo.apps.play.webrtc import require_aiortc
from dreamdojo.apps.play.worlds import Worlds
from dreamdojo.errors import ConfigError

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
}
CLOSE_FOREIGN = 4403
"""WebSocket close code for a page that came from another site, or does not know the token."""


def create_app(worlds: Mapping[str, PlayWorld], starts: Sequence[Start], settings: PlaySettings) -> FastAPI:
    """The page and its WebSocket, with worlds to drive.

    Raises:
        ConfigError: if the worlds cannot be driven together, or a start does not say what a world needs.
    """
    check_worlds(worlds, starts)
    driver = Driver({"worlds": Worlds(worlds, settings)}, starts, settings)
    return create_page(driver, starts, settings)


def create_page(
    driver: Driver, starts: Sequence[Start], settings: PlaySettings, extension: Extension | None = None
) -> FastAPI:
    """The page and its WebSocket. The driver works in a thread that lives as long as the app runs."""
    if settings.webrtc:
        require_aiortc()
    hello = _hello(starts, settings, driver) | ({extension.name: dict(extension.hello)} if extension else {})
    audience = Audience(driver, settings, hello, extension)
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
    async def connect(
        websocket: WebSocket,
        page: Annotated[str, Query(max_length=64)] = "",
        token: Annotated[str, Query(max_length=128)] = "",
    ) -> None:
        await websocket.accept()
        if settings.token is not None and not secrets.compare_digest(token.encode(), settings.token.encode()):
            log.warning("refused a page without the token, from %s", websocket.client)
            await websocket.close(CLOSE_FOREIGN, "the address lacks the token")
            return
        if not _is_own_page(websocket, settings):
            log.warning("refused a page from %s", websocket.headers.get("origin"))
            await websocket.close(CLOSE_FOREIGN, "the page comes from another site")
            return
        await audience.serve(websocket, page or f"{websocket.client}")

    @app.websocket("/{path:path}")
    async def nowhere(websocket: WebSocket, path: str) -> None:
        log.info("refused a connection to /%r", path)
        await websocket.close()

    if extension is not None:
        app.mount(f"/{extension.name}", StaticFiles(directory=extension.folder))
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
    serve_app(create_app(worlds, starts, settings), settings, announce=announce, stop=stop)


def serve_app(
    app: FastAPI,
    settings: PlaySettings,
    *,
    announce: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serve a page until Ctrl-C, or until `stop` is set; `announce` gets the address as soon as the page answers.

    Raises:
        ConfigError: if the address cannot be listened on.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        ws_max_size=4 * settings.max_message_bytes,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=2,
    )
    with _listen(settings) as listener:
        url = f"http://{_netloc(settings.host, listener.getsockname()[1])}"
        if settings.token is not None:
            url += f"/?token={settings.token}"
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


def check_worlds(worlds: Mapping[str, PlayWorld], starts: Sequence[Start]) -> None:
    """Refuse worlds that cannot be driven together.

    Raises:
        ConfigError: saying why.
    """
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


def _hello(starts: Sequence[Start], settings: PlaySettings, driver: Driver) -> dict[str, Any]:
    return {
        "type": "hello",
        "session": secrets.token_hex(8),
        "media_type": "image/jpeg" if settings.encoding == "jpeg" else "image/webp",
        "embodiment": driver.controls.embodiment.name,
        "rate": driver.rate,
        "webrtc": settings.webrtc,
        "controls": [asdict(column) for column in driver.controls.columns],
        "worlds": [
            {"mode": mode, **asdict(panel)} for mode, vehicle in driver.vehicles.items() for panel in vehicle.panels
        ],
        "starts": [{"name": start.name, "thumbnail": f"starts/{i}.png"} for i, start in enumerate(starts)],
    }


def _png(start: Start) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(start.thumbnail).save(buffer, "PNG")
    return buffer.getvalue()
