"""Segmenters of nuclei, HoVer-Net style: the evaluator, the critic, and those that synthetic pairs are tried on."""
