"""`dreamdojo play`: a web page on which a person drives one or more worlds, live.

    page ──commands──▶ audience ──▶ driver ──▶ Vehicle.advance: World.step
    page ◀──frames──── audience ◀── driver ◀── frames

`controls` turns an embodiment's action fields into keys and sliders, `driver` is the one thread that advances what is
driven (`vehicle`: here `worlds` in lockstep), `audience` is the set of connected pages, `messages` is what travels
between page and server, and `server` ties them to FastAPI and uvicorn. The page itself is the plain HTML, CSS and
JavaScript in `static/`. `dreamdojo.apps.teleop` adds a robot to all of this as an `Extension`.
"""

from dreamdojo.errors import MissingDependencyError

try:
    import fastapi  # noqa: F401
    import uvicorn  # noqa: F401
    import websockets  # noqa: F401  uvicorn asks for it only when the first page connects

    from dreamdojo.apps.play.controls import Control, Controls
    from dreamdojo.apps.play.server import create_app, serve
    from dreamdojo.apps.play.settings import PlaySettings, PlayWorld, Start
except ImportError as error:
    if error.name is None or error.name.startswith("dreamdojo"):
        raise
    raise MissingDependencyError(
        f"dreamdojo play needs the package {error.name}, which is not installed. Run: pip install 'dreamdojo[play]'"
    ) from error

__all__ = ["Control", "Controls", "PlaySettings", "PlayWorld", "Start", "create_app", "serve"]
