"""The cockpit's page: that of `dreamdojo play`, with a robot to drive and the instruments for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fastapi import FastAPI

from dreamdojo.apps.play.audience import Extension
from dreamdojo.apps.play.driver import Driver
from dreamdojo.apps.play.messages import BadMessageError, Message
from dreamdojo.apps.play.server import check_worlds, create_page
from dreamdojo.apps.play.settings import PlaySettings, PlayWorld, Start
from dreamdojo.apps.play.vehicle import Vehicle
from dreamdojo.apps.play.worlds import Worlds
from dreamdojo.apps.teleop.cockpit import Cockpit
from dreamdojo.apps.teleop.messages import COCKPIT, Mode, Stop
from dreamdojo.errors import ConfigError

STATIC = Path(__file__).parent / "static"
ROBOT, DREAM = "robot", "dream"
"""The two modes."""


def create_cockpit(
    cockpit: Cockpit, dreams: Mapping[str, PlayWorld], starts: Sequence[Start], settings: PlaySettings
) -> FastAPI:
    """A page that drives the robot, and (where there are `dreams`) the world model, one or the other.

    Raises:
        ConfigError: if robot and dream take different commands, or a start does not fit.
    """
    vehicles: dict[str, Vehicle] = {ROBOT: cockpit}
    if dreams:
        check_worlds(dreams, starts)
        worlds = Worlds(dreams, settings)
        if worlds.controls.columns != cockpit.controls.columns:
            raise ConfigError(
                f"expected a robot with the actions of the dream, got {cockpit.controls.embodiment.name} and "
                f"{worlds.controls.embodiment.name}"
            )
        vehicles[DREAM] = worlds
    driver = Driver(vehicles, starts, settings)

    def obey(message: Message) -> None:
        if isinstance(message, Mode):
            if message.mode not in driver.vehicles:
                raise BadMessageError(f"mode: {message.mode}", f"one of {', '.join(driver.vehicles)}")
            driver.switch(message.mode)
        else:
            cockpit.obey(message)

    extension = Extension(
        name="cockpit",
        folder=STATIC,
        hello={**cockpit.hello, "modes": list(vehicles)},
        messages=COCKPIT,
        anyone=(Stop,),
        obey=obey,
    )
    return create_page(driver, starts, settings, extension)
