"""Samovar: a terminal chat workstation that keeps prompts hot."""

__version__ = "0.1.0"
