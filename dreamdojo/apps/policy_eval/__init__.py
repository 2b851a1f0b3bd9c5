"""Judge policies inside a world model: from real first frames, many at once, beside the truth where there is one.

`starts` says where episodes begin, `truth` is the dojo from those very starts, `act` lets a policy act in a world,
`success` says whether it did what it should, `compare` lays model and truth side by side, `report` shows it.
"""
