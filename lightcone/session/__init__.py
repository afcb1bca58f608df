"""The lifecycle of a session: probe, start, join and stop it.

What runs inside a session is not here.
"""
