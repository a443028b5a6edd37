"""Typed precision: ONNX graphs whose types are exactly what will run.

TensorRT 11 is strongly typed only: there is no builder flag that lets it choose, so float16 or bfloat16 is written into
the graph. :mod:`.rules` says which nodes stay float32 and why, from the graph's structure and from ranges measured
along real trajectories (:mod:`.ranges`); :mod:`.rewrite` writes the types down; :mod:`.variants` does it for a bundle.
"""
