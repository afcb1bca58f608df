"""What runs on a worker: tasks, recipes, containers; nothing here decides what is to be made."""
