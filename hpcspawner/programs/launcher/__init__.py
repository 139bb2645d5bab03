"""Runs on the compute node: trades the job's ticket for the server's environment, starts the server, reports its port.

It travels inside the job script as one text, which `programs.joined` makes of its parts, for Python 3.6 and
later, with the standard library alone. A part imports from those before it, and no two have a name in common.
"""

PARTS = ("codes", "words", "signals", "hub", "node", "server", "behind", "start", "job")
