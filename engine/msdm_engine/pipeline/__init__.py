"""The sampler that keeps a device full: what comes before and after the steps of a batch runs beside those of another.

- ``setting``: what decides the shapes of a run, and the segments of its trajectory
- ``inventory``, ``memory``: every buffer of a setting by name, and whether they fit
- ``lane``: a setting with its buffers allocated, its graphs bound and its trajectory captured
- ``order``: **the order of submissions: streams, events and what waits for what, on one screen**
- ``conditions``, ``handover``: what the host writes into the first buffers and makes of the last
- ``run``: batches one after another, errors, and a batch halved where memory ends
- ``runtime``: what an engine keeps between its runs

What it computes is :func:`msdm_engine.sampling.sampler.sample`, to the bit. docs/runtime.md says how to read it.
"""
