"""Conditions of a pair: what a user can ask for, as the arrays that the networks read. One code to train and serve.

``maps`` and ``decode`` hold the morphology (instance map <-> foreground, horizontal and vertical maps).
"""
