"""One ``lc run`` or ``lc exec`` as its caller sees it: driver, report, detached runs.

Nothing here runs in a session's own programs.
"""
