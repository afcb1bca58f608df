"""SLURM's variables and commands: an allocation, its steps, the queue.

Nothing here knows of sessions.
"""
