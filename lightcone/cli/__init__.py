"""The verbs of ``lc``: parse words, print results, choose exit codes.

No logic of a run or a session is here.
"""
