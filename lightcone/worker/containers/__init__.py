"""How a recipe runs in a container: images, runtimes, users; nothing here starts a process."""
