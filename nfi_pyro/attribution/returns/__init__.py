"""What a portfolio earned: Brinson effects, realised parts, and linking over dates."""
