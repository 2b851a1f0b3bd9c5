"""The bodies that can stand at the table, by name. A new one is a `Body` and a line here."""

from __future__ import annotations

from dreamdojo.dojo.body import Body
from dreamdojo.dojo.human_arm import HUMAN
from dreamdojo.dojo.mobile_arm import MOBILE_ARM
from dreamdojo.dojo.robot_arm import ROBOT_ARM

BODIES: dict[str, Body] = {body.name: body for body in (HUMAN, ROBOT_ARM, MOBILE_ARM)}
