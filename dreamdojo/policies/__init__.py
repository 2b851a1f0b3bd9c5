"""Policies: whoever acts in a world, through `dreamdojo.world.Policy`.

Our own (`cloning`, `scripted`, `simple`), and those of others: a Python function (`simple`), a LeRobot checkpoint
(`lerobot`), an openpi server (`openpi`). `open_policy` finds the right one for a word on the command line.
"""
