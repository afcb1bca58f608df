"""The terminal server of a session; no other room runs it."""
