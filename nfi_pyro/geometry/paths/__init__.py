"""Curves of the manifold: exponentials, geodesics, distances and transport along them."""
