"""Results of attribution: frozen, labelled, and all that a page imports."""
