"""What ``lc init`` writes into a project, as changes to files; nothing here asks or prints."""
