"""The live view of a session, drawn for a terminal.

Nothing here changes what a session does, but for cancelling a run.
"""
