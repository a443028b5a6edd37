"""A generated set in the formats that segmentation tools read (``msdm-engine convert``).

One small file for each format, each a :class:`msdm_engine.convert.format.Format`, by name in ``registry.FORMATS``;
``job.convert_set`` verifies the set and runs one. Nothing is imported here, so that the command line starts at once.
"""
