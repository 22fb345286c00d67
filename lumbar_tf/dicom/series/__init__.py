"""What a series is: plane and weighting, and whether its slices make a stack."""
