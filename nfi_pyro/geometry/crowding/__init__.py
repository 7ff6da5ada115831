"""Crowding of exposures: their flow, density and incentive, with nulls by permutation."""
