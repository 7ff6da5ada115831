"""The manifold of the factors' law: distances between dates in closed form."""
