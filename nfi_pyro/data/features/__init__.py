"""Alpha158: formulas, rolling operators, and their computation in blocks."""
