"""Code in a session's scheduler; nothing here runs in a caller or worker."""
