"""How numbers of a law change with exposures: Jacobians, Hessians, Taylor terms, portfolios."""
