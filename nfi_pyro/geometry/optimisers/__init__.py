"""Riemannian optimisers, and optima under limits of distance and variance."""
