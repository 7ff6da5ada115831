"""Torch blocks of the published networks; no Pyro, no data."""
