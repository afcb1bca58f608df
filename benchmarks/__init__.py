"""Benchmarks: ``lc`` beside what people would use instead, in one run on one machine.

``python -m benchmarks quick`` (``make bench``) and ``python -m benchmarks full``
(``make bench-full``). See README.md.
"""
