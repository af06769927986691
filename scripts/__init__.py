"""Thin command-line experiments: parse, call the packages, save.

Run one from the checkout with ``python -m scripts.NAME --help``. Nothing in here is installed with the packages.
"""
