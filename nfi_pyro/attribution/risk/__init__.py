"""What a portfolio's risk is made from: Euler contributions, weights, hedges."""
