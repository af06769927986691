"""Experiments on fair machine unlearning: one file each, run as ``python -m scripts.fmu.NAME``."""
