"""Plans: a task in words and the waypoints that a hand goes through to do it.

A plan is made from where things are now and carries its own mistakes: aims are off by a few millimetres, some hands
close too early and some let go on the way, for a world model must see failures too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from dreamdojo.dojo.difficulty import Difficulty
from dreamdojo.dojo.geometry import matrix, wrap, yaw_of
from dreamdojo.dojo.simulation import Simulation

Task = Literal["pick_place", "push", "push_away", "topple", "wander", "cover"]
TASKS: tuple[Task, ...] = get_args(Task)

_CLEARANCE = 0.05  # metres between a passing hand and what it passes over
_CENTRE = (0.03, 0.0)  # of the table top in view
_PALM = 0.05  # metres from between the fingertips up to what hides the most
_ASIDE = 0.12  # metres that a covering hand moves to the side


@dataclass(frozen=True, kw_only=True)
class Skill:
    """How well an actor does what it tries."""

    aim_error: float
    """Standard deviation of its aim, metres."""
    tremor: float
    """Standard deviation of the noise in its velocity, m/s."""
    slip: float
    """Probability that it closes its hand too early, and that it lets go too early."""

    @classmethod
    def of(cls, difficulty: Difficulty) -> Skill:
        """The ordinary actor of a difficulty."""
        return cls(aim_error=difficulty.clumsiness, tremor=difficulty.tremor, slip=0.18)


EXPERT = Skill(aim_error=0.0, tremor=0.0, slip=0.0)
"""An actor that makes no mistakes."""


@dataclass(frozen=True, kw_only=True)
class Waypoint:
    """A place to move to, and what the hand does on the way."""

    position: np.ndarray
    """`(3,)` of the effector, metres."""
    yaw: float | None = None
    """Turn about the vertical to reach, radians; None keeps it."""
    opening: float = 1.0
    """Of the hand, 0 to 1."""
    wait: int = 0
    """Frames to stay after arriving, e.g. for fingers to close."""
    slow: float = 1.0
    """Factor on the actor's speed."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Something to do."""

    task: Task
    """What kind of thing."""
    words: str
    """The same in a sentence."""
    target: int | None
    """Number of the object it is about."""
    waypoints: tuple[Waypoint, ...]
    """In order."""


def make_plan(task: str, simulation: Simulation, rng: np.random.Generator, skill: Skill) -> Plan:
    """A plan for a task; where the scene does not allow it, for a push."""
    plan = _MAKERS[task](simulation, rng, skill) or _push(simulation, rng, skill)
    body = simulation.body
    reachable = tuple(
        replace(
            waypoint,
            position=np.clip(waypoint.position, body.workspace_low, body.workspace_high),
            yaw=None if waypoint.yaw is None else float(np.clip(waypoint.yaw, *body.yaw_range)),
        )
        for waypoint in plan.waypoints
    )
    return replace(plan, waypoints=reachable)


def _pick_place(simulation: Simulation, rng: np.random.Generator, skill: Skill) -> Plan | None:
    body, options = simulation.body, _grasps(simulation, rng)
    if not options:
        return None
    index, where, yaw = options[int(rng.integers(len(options)))]
    thing = simulation.layout.objects[index]
    where = where + _aim_error(rng, skill)
    where[2] = max(where[2], body.workspace_low[2])
    cos, sin = math.cos(yaw), math.sin(yaw)
    approach = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.array(body.approach)
    before = where + approach
    above = np.array([*before[:2], max(before[2], thing.shape.height + _CLEARANCE)])
    high = np.add(where, (0, 0, rng.uniform(0.05, 0.09)))
    margin = 0.04
    low_corner, high_corner = np.array(body.workspace_low[:2]) + margin, np.array(body.workspace_high[:2]) - margin
    place = rng.uniform(low_corner, high_corner)
    if simulation.layout.errand is not None:  # the hand may not hold the object by its middle
        place = simulation.layout.errand.goal + where[:2] - simulation.object_poses()[index, :2]
    target = np.array([*place, where[2] + 0.004])
    over = np.array([*target[:2], high[2]])
    if rng.random() < skill.slip:
        target = over  # lets go in the air
    waypoints = [Waypoint(position=above, yaw=yaw)]
    if above[2] > before[2] + 0.01:
        waypoints.append(Waypoint(position=before, yaw=yaw))
    early = rng.random() < skill.slip
    if early:
        waypoints.append(Waypoint(position=(before + where) / 2, yaw=yaw, opening=0.0, wait=4))
    waypoints += [
        Waypoint(position=where, yaw=yaw, opening=0.0 if early else 1.0, slow=0.7),
        Waypoint(position=where, yaw=yaw, opening=0.0, wait=5),
        Waypoint(position=high, yaw=yaw, opening=0.0, slow=0.8),
        Waypoint(position=over, yaw=yaw, opening=0.0),
        Waypoint(position=target, yaw=yaw, opening=0.0, slow=0.7),
        Waypoint(position=target, yaw=yaw, opening=1.0, wait=4),
        Waypoint(position=target + approach, yaw=yaw, slow=0.8),
    ]
    words = f"pick up the {thing.name} and put it down"
    return Plan(task="pick_place", words=words, target=index, waypoints=tuple(waypoints))


def _grasps(simulation: Simulation, rng: np.random.Generator) -> list[tuple[int, np.ndarray, float]]:
    """(object, effector position, effector yaw) of every grasp that the body can try."""
    body, poses, errand = simulation.body, simulation.object_poses(), simulation.layout.errand
    options = []
    for index, thing in enumerate(simulation.layout.objects):
        position, rotation = poses[index, :3], matrix(poses[index, 3:])
        if rotation[2, 2] < 0.95 or (errand is not None and index != errand.target):
            continue
        for grasp in thing.shape.grasps:
            if not body.can_take(grasp.width, edge=grasp.edge):
                continue
            wanted = None if grasp.yaw is None else yaw_of(rotation) + grasp.yaw
            yaw = _reachable_yaw(simulation, wanted, rng)
            if yaw is not None:
                options.append((index, position + rotation @ np.array(grasp.position), yaw))
    return options


def _reachable_yaw(simulation: Simulation, yaw: float | None, rng: np.random.Generator) -> float | None:
    """`yaw`, or the opposite where the hand is the same both ways; None when the body can turn to neither."""
    low, high = simulation.body.yaw_range
    if yaw is None:
        return float(np.clip(rng.normal((low + high) / 2, 0.25), low, high))
    for candidate in (wrap(yaw), wrap(yaw + math.pi)):
        if low <= candidate <= high:
            return candidate
    return None


def _push(simulation: Simulation, rng: np.random.Generator, skill: Skill) -> Plan:
    objects, errand = simulation.layout.objects, simulation.layout.errand
    index = int(rng.integers(len(objects)))
    direction, distance = _inward(simulation, rng, index), float(rng.uniform(0.06, 0.15))
    if errand is not None:
        index = errand.target
        away = np.subtract(errand.goal, simulation.object_poses()[index, :2])
        # The hand stops where the object's edge was when its centre is at the goal.
        direction, distance = math.atan2(away[1], away[0]), float(np.linalg.norm(away)) - objects[index].shape.footprint
    height = simulation.body.push_height
    waypoints = _through(simulation, rng, skill, index, direction=direction, height=height, distance=distance)
    return Plan(task="push", words=f"push the {objects[index].name}", target=index, waypoints=waypoints)


def _push_away(simulation: Simulation, rng: np.random.Generator, skill: Skill) -> Plan:
    """Straight away from the body: what the hand does follows from where the object is, so it is easily learned."""
    objects = simulation.layout.objects
    index = int(rng.integers(len(objects)))
    height = simulation.body.push_height
    waypoints = _through(simulation, rng, skill, index, direction=0.0, height=height, distance=0.1)
    words = f"push the {objects[index].name} away"
    return Plan(task="push_away", words=words, target=index, waypoints=waypoints)


def _topple(simulation: Simulation, rng: np.random.Generator, skill: Skill) -> Plan | None:
    poses = simulation.object_poses()
    tall = [
        index
        for index, thing in enumerate(simulation.layout.objects)
        if thing.shape.height > 2.2 * thing.shape.footprint and matrix(poses[index, 3:])[2, 2] > 0.9
    ]
    if not tall:
        return None
    index = tall[int(rng.integers(len(tall)))]
    thing = simulation.layout.objects[index]
    height = 0.85 * thing.shape.height
    direction = _inward(simulation, rng, index)
    waypoints = _through(simulation, rng, skill, index, direction=direction, height=height, distance=0.08)
    return Plan(task="topple", words=f"topple the {thing.name}", target=index, waypoints=waypoints)


def _inward(simulation: Simulation, rng: np.random.Generator, index: int) -> float:
    """A direction that keeps an object in view: roughly towards the middle of the table, radians."""
    x, y = simulation.object_poses()[index, :2]
    return math.atan2(_CENTRE[1] - y, _CENTRE[0] - x) + float(rng.uniform(-1.2, 1.2))


def _through(
    simulation: Simulation,
    rng: np.random.Generator,
    skill: Skill,
    index: int,
    *,
    direction: float,
    height: float,
    distance: float,
) -> tuple[Waypoint, ...]:
    """Go down beside an object with the hand closed, and move through it until `distance` metres past its centre."""
    position = simulation.object_poses()[index, :3]
    thing, body = simulation.layout.objects[index], simulation.body
    along = np.array([math.cos(direction), math.sin(direction), 0.0])
    level = np.array([*position[:2], max(height, body.workspace_low[2])]) + _aim_error(rng, skill)
    start = level - along * (thing.shape.footprint + 0.06)
    above = np.array([*start[:2], thing.shape.height + _CLEARANCE])
    end = level + along * distance
    opening = float(rng.choice([0.0, 0.0, 0.3]))
    return (
        Waypoint(position=above, opening=opening),
        Waypoint(position=start, opening=opening),
        Waypoint(position=end, opening=opening, slow=0.85),
        Waypoint(position=np.add(end - along * 0.02, (0, 0, 0.06)), opening=opening),
    )


def _wander(simulation: Simulation, rng: np.random.Generator, skill: Skill) -> Plan:
    del skill
    body = simulation.body
    waypoints = tuple(
        Waypoint(
            position=rng.uniform(body.workspace_low, body.workspace_high),
            yaw=float(rng.uniform(*body.yaw_range)),
            opening=float(rng.choice([0.0, 0.5, 1.0])),
            wait=int(rng.integers(0, 4)),
        )
        for _ in range(int(rng.integers(2, 5)))
    )
    return Plan(task="wander", words="move about", target=None, waypoints=waypoints)


def _cover(simulation: Simulation, rng: np.random.Generator, skill: Skill) -> Plan:
    """Hold the hand between the camera and an object for a while, touching nothing, then move it to the side."""
    objects, body = simulation.layout.objects, simulation.body
    index = int(rng.integers(len(objects)))
    position = simulation.object_poses()[index, :3]
    sight = np.subtract(simulation.layout.look.camera_position, position)
    height = objects[index].shape.height + _CLEARANCE + _PALM
    between = position + sight * (height - position[2]) / sight[2] - (0, 0, _PALM) + _aim_error(rng, skill)
    middle = (body.workspace_low[1] + body.workspace_high[1]) / 2
    aside = np.add(between, (0, _ASIDE if between[1] < middle else -_ASIDE, 0))
    opening = float(rng.choice([0.0, 1.0]))
    waypoints = (
        Waypoint(position=between, opening=opening, wait=int(rng.integers(4, 9))),
        Waypoint(position=aside, opening=opening, wait=4),
    )
    return Plan(task="cover", words=f"cover the {objects[index].name}", target=index, waypoints=waypoints)


def _aim_error(rng: np.random.Generator, skill: Skill) -> np.ndarray:
    return np.array([*rng.normal(0, skill.aim_error, 2), 0.0])


_MAKERS: Mapping[str, Callable[[Simulation, np.random.Generator, Skill], Plan | None]] = {
    "pick_place": _pick_place,
    "push": _push,
    "push_away": _push_away,
    "topple": _topple,
    "wander": _wander,
    "cover": _cover,
}
