"""Measurements: each module prints a table and writes JSON beside the hardware, versions and command that made it."""
