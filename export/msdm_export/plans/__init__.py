"""Graphs of a bundle -> TensorRT plans: profiles, targets, the walk over the parsed network, the build, the files."""
