"""Synthetic studies: an analytic lumbar spine whose severity, and so whose best score, is known."""

from lumbar_tf.imaging.phantom.anatomy import Anatomy, make_anatomy, mirror_anatomy
from lumbar_tf.imaging.phantom.cohort import CohortOptions, landmark, write_cohort
from lumbar_tf.imaging.phantom.patch import Weighting
from lumbar_tf.imaging.phantom.protocol import Resolution, SeriesPlan, plan_series
from lumbar_tf.imaging.phantom.render import Acquisition, render_slice
from lumbar_tf.imaging.phantom.severity import (
    GradedSeverity,
    best_possible_losses,
    draw_severity,
    grade_probabilities,
    prior_losses,
)

__all__ = [
    "CohortOptions",
    "Resolution",
    "write_cohort",
    "Anatomy",
    "make_anatomy",
    "mirror_anatomy",
    "landmark",
    "Acquisition",
    "SeriesPlan",
    "Weighting",
    "plan_series",
    "render_slice",
    "GradedSeverity",
    "draw_severity",
    "grade_probabilities",
    "best_possible_losses",
    "prior_losses",
]
