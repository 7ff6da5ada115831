"""Results of the geometry: frozen arrays and flags, no drawing and no fitting."""
