"""Whether an output is good and who may make it: records, hashes, claims, plans.

No recipe is run here.
"""
