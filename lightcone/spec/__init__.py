"""``astra.yaml`` and its universes, read, checked and resolved into outputs.

No result is looked at here.
"""
