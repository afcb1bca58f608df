"""The context of a call: project, settings, host, site, scratch.

No session and no spec is read here.
"""
