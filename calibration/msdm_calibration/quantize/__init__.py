"""Below FP16 where nobody can tell: INT8 and FP8 graphs with explicit quantise/dequantise nodes, and a precision map.

In order: :mod:`.targets` says which nodes may be quantised; :mod:`.levels` how much each noise level matters;
:mod:`.migrate` moves outlier channels from activations into weights; :mod:`.collect` gathers histograms along
trajectories, resumably; :mod:`.choose` picks each scale by what it does to its layer's output; :mod:`.rewrite` writes
the nodes; :mod:`.variants` puts the graphs into the bundle. :mod:`.sensitivity` asks block by block what it costs.
"""
