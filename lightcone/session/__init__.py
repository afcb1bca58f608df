"""The lifecycle of a session and the ways to use one: asked, started, joined, ended.

What runs inside a session is not here.
"""
