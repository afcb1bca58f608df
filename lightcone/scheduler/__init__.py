"""What we load into a session's scheduler; nothing here runs in a caller or a worker."""
