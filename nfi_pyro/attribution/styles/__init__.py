"""What a signal or a portfolio has in common with styles."""
