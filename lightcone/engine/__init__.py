"""The engine's command lines and settings, and every use of what it does not document.

Nothing else is here.
"""
