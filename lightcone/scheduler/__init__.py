"""The part of lightcone in a session's scheduler; nothing here runs in a caller or a worker."""
