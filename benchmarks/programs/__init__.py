"""Programs that are measured, or that prepare what is; each is run by the Python it belongs to."""
