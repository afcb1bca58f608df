"""Every message between callers, scheduler and workers, and how it travels.

The effect of a message is not here.
"""
