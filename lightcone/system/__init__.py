"""What the operating system offers: processes, signals, locks, files, mounts.

Nothing here knows of lightcone's work.
"""
