"""Which exposures price returns together: scores of laws, evidence of data."""
