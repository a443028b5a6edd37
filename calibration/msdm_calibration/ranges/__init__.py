"""Ranges of every activation on real trajectories, and what follows from them."""
