"""The operating system: processes, signals, locks, files, mounts.

Nothing here knows of lightcone's work.
"""
