"""Series: attributes, plane, weighting, selection and consistency of the slices."""
