"""Images, runtimes and users of containers; nothing here runs a recipe."""
