"""`dreamdojo teleop`: drive a robot a second ahead of its camera.

    page ──orders──▶ link ──▶ onboard (watchdog, deadman, stop, limits) ──▶ robot
    page ◀─ camera (late) ── link ◀── robot
         ◀─ prediction (now) ── predictor, anchored on every real frame

`robot` is the protocol of what is driven (the dojo, any Gymnasium environment, LeRobot arms in `lerobot_arm`), `link`
delays and loses, `onboard` keeps the robot safe, `predict` looks ahead, `teleoperation` ties these together period by
period without a clock. `calibration`, `hazards` and `correct` warn and advise, `pace` keeps up with the clock, `record`
keeps sessions and replays them, `hand` and the leader arm are further inputs. `cockpit` shows all of it as a vehicle of
`dreamdojo.apps.play`, whose page, driver and audience serve it.
"""

from dreamdojo.apps import play  # noqa: F401  says what to install where the server's packages are missing
