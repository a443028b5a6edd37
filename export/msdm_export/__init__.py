"""Checkpoint to bundle: turns a training checkpoint into ONNX graphs, measures their parity against PyTorch on real
inputs, and writes the bundle that :mod:`msdm_engine` opens. Imports the model from :mod:`msdm_train` and the contract
from :mod:`msdm_engine`; neither knows of it. Needs the extra ``export`` and an ONNX runtime (``cpu`` or ``gpu``).
"""
