"""The engine's command lines and settings, and all uses of its undocumented behaviour.

Nothing else is here.
"""
