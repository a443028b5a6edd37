"""Which solver, steps and guidance a bundle should have by default, measured."""
