"""The changes that ``lc init`` makes to a project's files.

Nothing here prompts or prints.
"""
