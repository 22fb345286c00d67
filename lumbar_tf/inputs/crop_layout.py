"""Which landmarks a plane's crops are cut around, and which findings they answer."""

from dataclasses import dataclass

import tensorflow as tf

from lumbar_tf.config import Anchor, PlaneConfig
from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, Condition, Family, Level, Plane, Side, finding_index

_CANAL = [finding_index(Condition.SPINAL_CANAL_STENOSIS, level) for level in Level]
_LEFT_FORAMEN = [finding_index(Condition.LEFT_NEURAL_FORAMINAL_NARROWING, level) for level in Level]
_RIGHT_FORAMEN = [finding_index(Condition.RIGHT_NEURAL_FORAMINAL_NARROWING, level) for level in Level]
_LEFT_SUBARTICULAR = [finding_index(Condition.LEFT_SUBARTICULAR_STENOSIS, level) for level in Level]
_RIGHT_SUBARTICULAR = [finding_index(Condition.RIGHT_SUBARTICULAR_STENOSIS, level) for level in Level]


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
        return any(family is not Family.CANAL for family in self.families)

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
    if layout.plane is Plane.SAGITTAL_T1 and layout.is_sided:
        left = tf.gather(points, _LEFT_FORAMEN, axis=-2)
        right = tf.gather(points, _RIGHT_FORAMEN, axis=-2)
    elif layout.anchor == "subarticular":
        left = tf.gather(points, _LEFT_SUBARTICULAR, axis=-2)
        right = tf.gather(points, _RIGHT_SUBARTICULAR, axis=-2)
    else:
        left = right = level_points(points)
    if not layout.is_sided:
        # Of the canal alone there is one crop a level, whichever points are known.
        return level_points(points)
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
    points = tf.concat([canal, left, right, unknown, unknown], axis=1)
    levels = level_points(points)
    canal = tf.where(tf.math.is_finite(canal), canal, levels)
    return tf.ensure_shape(tf.concat([canal, left, right, levels, levels], axis=1), [None, NUM_FINDINGS, 3])


def refine_points(points: tf.Tensor, subarticular: tf.Tensor) -> tf.Tensor:
    """Puts what an axial localizer found into the subarticular rows, float32 [..., 25, 3].

    Args:
        points: float32 [..., 25, 3] of `complete_points`, LPS mm.
        subarticular: float32 [..., 10, 3], level by level and left before right; where it is NaN the row
            keeps what it has, the level point.
    """
    rows = localizer_rows(Plane.AXIAL_T2)
    ordered = tf.gather(subarticular, [rows.index(row) for row in sorted(rows)], axis=-2)
    others, old = points[..., : min(rows), :], points[..., min(rows) :, :]
    return tf.concat([others, tf.where(tf.math.is_finite(ordered), ordered, old)], axis=-2)


def localizer_rows(plane: Plane) -> tuple[int, ...]:
    """Returns the rows that a plane's localizer points at, in its output order."""
    if plane is Plane.SAGITTAL_T2:
        return tuple(_CANAL)
    left, right = (
        (_LEFT_FORAMEN, _RIGHT_FORAMEN) if plane.is_sagittal else (_LEFT_SUBARTICULAR, _RIGHT_SUBARTICULAR)
    )
    return tuple(row for pair in zip(left, right, strict=True) for row in pair)
