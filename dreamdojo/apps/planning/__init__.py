"""Planning inside a world: candidates are imagined by `World.fork(n)` and `step`, and the cheapest is executed.

    space       what a candidate is: action knots, or the few numbers of a stroke
    search      CEM, iCEM and MPPI over candidates
    imagine     what a world says happens under each
    objectives  what that costs: goal pictures, object goals, steps to go, a user's function
    planner     the three together, and best-of-N over what policies propose
    errands     the dojo's tasks seen as objectives, by truth or by probes
    execute     plan, act, look, plan again; the episode and its video
    offline     thousands of candidates scored in one job that can be stopped

Nothing here knows whether its world is a dream or the simulator, which is how regret is measured.
"""
