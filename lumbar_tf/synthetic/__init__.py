"""Synthetic studies: an analytic lumbar spine with known severities, and so a known best possible score."""

from lumbar_tf.synthetic.anatomy import Anatomy, make_anatomy, mirror_anatomy
from lumbar_tf.synthetic.cohort import CohortOptions, landmark, write_cohort
from lumbar_tf.synthetic.patch import SyntheticContrast
from lumbar_tf.synthetic.protocol import Resolution, SeriesPlan, plan_series
from lumbar_tf.synthetic.render import Acquisition, render_slice
from lumbar_tf.synthetic.severity import (
    GradedSeverity,
    draw_severity,
    grade_probabilities,
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
    "SyntheticContrast",
    "plan_series",
    "render_slice",
    "GradedSeverity",
    "draw_severity",
    "grade_probabilities",
]
