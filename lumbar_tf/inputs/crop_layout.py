"""Which landmarks a plane's crops are cut around, and which findings they answer."""

from dataclasses import dataclass

import tensorflow as tf

from lumbar_tf.config import Anchor, PlaneConfig
from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, Condition, Family, Level, Plane, Side, finding_index

#: Points of the level itself: the canal's, or midway between the foramina of both sides.
_CANAL = [finding_index(Condition.SPINAL_CANAL_STENOSIS, level) for level in Level]
_LEFT_FORAMEN = [finding_index(Condition.LEFT_NEURAL_FORAMINAL_NARROWING, level) for level in Level]
_RIGHT_FORAMEN = [finding_index(Condition.RIGHT_NEURAL_FORAMINAL_NARROWING, level) for level in Level]


@dataclass(frozen=True)
class CropLayout:
    """How one plane's crops are laid out: P = levels x sides, level by level.

    Attributes:
        plane: the plane.
        targets: families that its graders answer.
        auxiliary: families that they only train on.
        anchor: what axial crops are cut around.
    """

    plane: Plane
    targets: tuple[Family, ...]
    auxiliary: tuple[Family, ...] = ()
    anchor: Anchor = "level"

    @classmethod
    def of(cls, config: PlaneConfig) -> "CropLayout":
        """Returns the layout of a plane's graders."""
        return cls(config.plane, config.grader.targets, config.grader.auxiliary, config.grader.anchor)

    @property
    def families(self) -> tuple[Family, ...]:
        """What the network says something of: targets, then auxiliary families."""
        return self.targets + self.auxiliary

    @property
    def is_sided(self) -> bool:
        """Whether each level is looked at from both sides (else once)."""
        return any(family.is_sided for family in self.families)

    @property
    def sides(self) -> tuple[Side | None, ...]:
        """The side of each of the P crops."""
        per_level: tuple[Side | None, ...] = (Side.LEFT, Side.RIGHT) if self.is_sided else (None,)
        return per_level * len(Level)

    @property
    def rows(self) -> tuple[int, ...]:
        """The findings that the network says something of, as rows of the 25, ascending."""
        return tuple(row for row, finding in enumerate(FINDINGS) if finding.condition.family in self.families)

    @property
    def answered(self) -> tuple[int, ...]:
        """Places in `rows` of the targets' findings: those that are asked for."""
        return tuple(
            place for place, row in enumerate(self.rows) if FINDINGS[row].condition.family in self.targets
        )

    @property
    def row_views(self) -> tuple[tuple[bool, ...], ...]:
        """For each of `rows` which of the P crops show it: its side's, or the canal's from both sides."""
        per_level = len(self.sides) // len(Level)
        findings = [FINDINGS[row] for row in self.rows]
        return tuple(
            tuple(
                list(Level)[crop // per_level] is each.level
                and (side is None or each.condition.side in (side, None))
                for crop, side in enumerate(self.sides)
            )
            for each in findings
        )


def level_points(points: tf.Tensor) -> tf.Tensor:
    """Returns one point a level, float32 [..., 5, 3]: the canal's, else midway between the foramina.

    Args:
        points: float32 [..., 25, 3], LPS mm, NaN where unknown.
    """
    canal = tf.gather(points, _CANAL, axis=-2)
    between = (tf.gather(points, _LEFT_FORAMEN, axis=-2) + tf.gather(points, _RIGHT_FORAMEN, axis=-2)) / 2
    return tf.where(tf.math.is_finite(canal), canal, between)


def anchor_points(points: tf.Tensor, layout: CropLayout) -> tf.Tensor:
    """Returns the points that crops are cut around, float32 [..., P, 3].

    Sagittal T1 is cut around each side's foramina, axial T2 around each side's subarticular points where the
    layout says so, everything else around the level points.

    Args:
        points: float32 [..., 25, 3], LPS mm, NaN where unknown.
        layout: the plane's layout.
    """
    own = localizer_rows(layout.plane)
    if not layout.is_sided:
        # Of the midline alone there is one crop a level, whichever points are known.
        return level_points(points)
    if len(own) == 2 * len(Level) and (layout.plane.is_sagittal or layout.anchor == "subarticular"):
        return tf.gather(points, own, axis=-2)
    left = right = level_points(points)
    both = tf.stack([left, right], axis=-2)
    return tf.reshape(both, tf.concat([tf.shape(points)[:-2], [2 * len(Level), 3]], axis=0))


def complete_points(canal: tf.Tensor | None, foramina: tf.Tensor | None) -> tf.Tensor:
    """Lays localizer outputs into the 25 rows, float32 [study, 25, 3].

    Args:
        canal: float32 [study, 5, 3] from sagittal T2, or None; NaN where unknown.
        foramina: float32 [study, 10, 3] from sagittal T1, level by level and left before right,
            or None; NaN where unknown.

    Returns:
        LPS mm; the subarticular rows hold the level points.

    Raises:
        ValueError: both are None.
    """
    given = canal if canal is not None else foramina
    if given is None:
        raise ValueError("Points of at least one sagittal plane are needed. Received: none.")
    studies = tf.shape(given)[0]
    unknown = tf.fill([studies, len(Level), 3], float("nan"))
    canal = unknown if canal is None else canal
    if foramina is None:
        left = right = unknown
    else:
        left, right = foramina[:, 0::2], foramina[:, 1::2]
    found = {
        Condition.SPINAL_CANAL_STENOSIS: canal,
        Condition.LEFT_NEURAL_FORAMINAL_NARROWING: left,
        Condition.RIGHT_NEURAL_FORAMINAL_NARROWING: right,
    }
    levels = level_points(tf.concat([found.get(condition, unknown) for condition in Condition], axis=1))
    found[Condition.SPINAL_CANAL_STENOSIS] = tf.where(tf.math.is_finite(canal), canal, levels)
    points = tf.concat([found.get(condition, levels) for condition in Condition], axis=1)
    return tf.ensure_shape(points, [None, NUM_FINDINGS, 3])


def refine_points(points: tf.Tensor, subarticular: tf.Tensor) -> tf.Tensor:
    """Puts what an axial localizer found into the subarticular rows, float32 [..., 25, 3].

    Args:
        points: float32 [..., 25, 3] of `complete_points`, LPS mm.
        subarticular: float32 [..., 10, 3], level by level and left before right; where it is NaN the row
            keeps what it has, the level point.
    """
    rows = localizer_rows(Plane.AXIAL_T2)
    # One more point, NaN, for the rows that no axial localizer points at.
    padding = [[0, 0]] * (len(subarticular.shape) - 2) + [[0, 1], [0, 0]]
    padded = tf.pad(subarticular, padding, constant_values=float("nan"))
    found = tf.gather(
        padded, [rows.index(row) if row in rows else len(rows) for row in range(NUM_FINDINGS)], axis=-2
    )
    return tf.where(tf.math.is_finite(found), found, points)


def localizer_rows(plane: Plane) -> tuple[int, ...]:
    """Returns the rows that a plane's localizer points at, level by level and left before right."""
    return tuple(
        finding_index(condition, level)
        for level in Level
        for condition in Condition
        if condition.family.spec.localized_on is plane
    )
