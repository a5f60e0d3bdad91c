"""`make torture`: the real program under kills, flipped bits, mutated inputs and full disks, for hours.

Each kind is a module with ``COUNT``, ``GOOD`` (outcomes that are no failure) and ``run(seeds, work)``, which yields one
:class:`report.Result` for each seed. A seed is a case: the same one comes again with ``--only``.
"""
