"""What ``lc init`` puts into a project, as changes to its files."""
