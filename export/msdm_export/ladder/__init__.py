"""The parity ladder: PyTorch float32 -> ONNX float32 -> typed graphs -> plan, each rung against the reference.

Each graph is compared alone, on the reference's inputs along the reference's trajectory, so that an error is that of
one graph at one noise level; then whole trajectories from the same noise. A rung that fails names output, noise level
and the first layer that leaves its tolerance.
"""
