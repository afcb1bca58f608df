"""Records, hashes, claims and plans, which decide whether an output is good.

No recipe is run here.
"""
