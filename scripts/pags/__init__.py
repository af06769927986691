"""Experiments on perceptually-aligned gradients: one file each, run as ``python -m scripts.pags.NAME``."""
