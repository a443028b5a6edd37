"""Stand-ins for the CUDA runtime and for TensorRT that behave, for tests and rehearsals on a machine without a GPU.

Memory is really held, streams keep their order, and nothing happens before somebody waits for it: the worst schedule
that CUDA allows. What runs on them shows the order of calls and the arithmetic, and nothing about a GPU.
"""
