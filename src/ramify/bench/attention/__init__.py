"""How close to the hardware is tree attention, and to its rivals?  (`ramify bench attention`)

One layer of decode attention over a forest: kernel time against a byte or tensor floor, plan time
apart. Fair: one process, the same q, k, v and forest for all, every provider at its best setting,
checked against float64 before it is timed, replays interleaved, cold L2.
"""
