"""Metrics of masks. Each returns one frozen value object that names its criterion; larger is better, 1 is perfect.

Behaviour without nuclei, in all of them: two empty masks agree (1), an empty and a filled one do not (0).
"""
