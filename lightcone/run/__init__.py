"""One ``lc run`` or ``lc exec`` in its caller's process: driver, report, detached runs.

Nothing here runs in a session's own programs.
"""
