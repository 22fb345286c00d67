"""A plane's networks, fold by fold: from records to runs and out-of-fold tables."""
