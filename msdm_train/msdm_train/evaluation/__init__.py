"""Is it real, is it right, does it help: the claims of the method as measurements.

Every section of the protocol is a module with ``run(context) -> dict``: it reads a :class:`~.context.Context`, writes
nothing but plots into ``context.out``, and returns what goes into ``report.json`` under its name: scores, each with
its floor, its ceiling, an interval where one can be had, and the protocol in words.
"""
