"""Activation ranges on real sampling trajectories, and the precision that follows from them. ``msdm-calibrate`` arrives
here with the calibration issue: it records ranges, says which layers are safe in FP16, and writes INT8 and FP8
quantise/dequantise nodes into the graphs. It has no command yet. It will import :mod:`msdm_engine` and call the other
stages' commands, reading the JSON that they write.
"""
