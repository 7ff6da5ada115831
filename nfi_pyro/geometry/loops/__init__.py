"""Integrals along curves, one-forms and what they are not: a riskless profit."""
