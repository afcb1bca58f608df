"""The commands of ``lc``: parse arguments, print results, choose exit codes.

No logic of a run or a session is here.
"""
