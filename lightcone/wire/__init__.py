"""Every message between callers, scheduler and workers, and how it travels.

What a message causes is not here.
"""
