"""Devices behind one small contract: streams, events, buffers, graphs. See :mod:`msdm_engine.devices.contract`."""
