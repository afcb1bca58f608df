"""``astra.yaml`` and its universes, read, checked and resolved into outputs.

This package reads no results.
"""
