"""Metrics of masks. Each returns one frozen value object that names its criterion. Larger is better and 1 is perfect,
but for the distance of boundaries, where 0 is.

Behaviour without nuclei, in all of them: two empty masks agree (1; no distance), an empty and a filled one do not (0;
the largest distance that there could be).
"""
