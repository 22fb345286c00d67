"""Tables of labels, level points, series descriptions, folds, landmarks and out-of-fold predictions."""
