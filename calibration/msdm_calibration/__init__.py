"""Activation ranges on real sampling trajectories, and the precision that follows from them: ``msdm-calibrate``.

Imports :mod:`msdm_engine` alone; of the other stages it calls the commands and reads the files that they write.
"""
