"""Prices in any usual layout: files, tables, matrices, qlib directories; one kind of bars out."""
