"""Annotated tiles to checkpoint: data readers, the joint image-and-mask diffusion model, training and evaluation. The
only package in which PyTorch trains. What training and serving must both compute (conditions, schedules, tensor names,
ranges) it takes from :mod:`msdm_engine`. Needs the extra ``train``.
"""
