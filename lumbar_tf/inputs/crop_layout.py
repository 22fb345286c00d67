"""Crop layout of a plane: anchor landmarks, sides and findings."""

from dataclasses import dataclass

import tensorflow as tf

from lumbar_tf.config import Anchor, PlaneConfig
from lumbar_tf.labels import FINDINGS, NUM_FINDINGS, Condition, Family, Level, Plane, Side, finding_index

#: Findings whose points define a level: the canal, or the midpoint of the foramina of both sides.
_CANAL = [finding_index(Condition.SPINAL_CANAL_STENOSIS, level) for level in Level]
_LEFT_FORAMEN = [finding_index(Condition.LEFT_NEURAL_FORAMINAL_NARROWING, level) for level in Level]
_RIGHT_FORAMEN = [finding_index(Condition.RIGHT_NEURAL_FORAMINAL_NARROWING, level) for level in Level]


@dataclass(frozen=True)
class CropLayout:
    """Crops of one plane: P = levels x sides, level by level.

    Attributes:
        plane: the plane.
        targets: families that its graders predict.
        auxiliary: families that only contribute to the training loss.
        anchor: landmarks at the centre of axial crops.
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
        """Families that the network predicts: targets, then auxiliary families."""
        return self.targets + self.auxiliary

    @property
    def is_sided(self) -> bool:
        """Whether each level has a left and a right crop (else one crop)."""
        return any(family.is_sided for family in self.families)

    @property
    def sides(self) -> tuple[Side | None, ...]:
        """The side of each of the P crops."""
        per_level: tuple[Side | None, ...] = (Side.LEFT, Side.RIGHT) if self.is_sided else (None,)
        return per_level * len(Level)

    @property
    def rows(self) -> tuple[int, ...]:
        """Findings that the network predicts, as rows of the 25, ascending."""
        return tuple(row for row, finding in enumerate(FINDINGS) if finding.condition.family in self.families)

    @property
    def target_places(self) -> tuple[int, ...]:
        """Positions of the targets' findings in `rows`."""
        return tuple(
            place for place, row in enumerate(self.rows) if FINDINGS[row].condition.family in self.targets
        )

    @property
    def row_views(self) -> tuple[tuple[bool, ...], ...]:
        """Whether each of the P crops shows each of `rows`, [rows][P]; both sides show the canal."""
        per_level = len(self.sides) // len(Level)
        findings = [FINDINGS[row] for row in self.rows]
        return tuple(
            tuple(
                list(Level)[crop // per_level] is finding.level
                and (side is None or finding.condition.side in (side, None))
                for crop, side in enumerate(self.sides)
            )
            for finding in findings
        )


def level_points(points: tf.Tensor) -> tf.Tensor:
    """Returns one point per level, float32 [..., 5, 3]: the canal's, else the midpoint of the foramina.

    Args:
        points: float32 [..., 25, 3], LPS mm, NaN where unknown.
    """
    canal = tf.gather(points, _CANAL, axis=-2)
    between = (tf.gather(points, _LEFT_FORAMEN, axis=-2) + tf.gather(points, _RIGHT_FORAMEN, axis=-2)) / 2
    return tf.where(tf.math.is_finite(canal), canal, between)


def anchor_points(points: tf.Tensor, layout: CropLayout) -> tf.Tensor:
    """Returns the centres of the crops, float32 [..., P, 3].

    Sagittal T1 crops are centred on each side's foramina, axial T2 crops on each side's subarticular points
    if `layout.anchor` is `subarticular`, and all others on the level points.

    Args:
        points: float32 [..., 25, 3], LPS mm, NaN where unknown.
        layout: the plane's layout.
    """
    own = localizer_rows(layout.plane)
    if not layout.is_sided:
        # One crop per level, whichever points are known.
        return level_points(points)
    if len(own) == 2 * len(Level) and (layout.plane.is_sagittal or layout.anchor == "subarticular"):
        return tf.gather(points, own, axis=-2)
    left = right = level_points(points)
    both = tf.stack([left, right], axis=-2)
    return tf.reshape(both, tf.concat([tf.shape(points)[:-2], [2 * len(Level), 3]], axis=0))


def complete_points(canal: tf.Tensor | None, foramina: tf.Tensor | None) -> tf.Tensor:
    """Combines localizer outputs to the 25 rows, float32 [study, 25, 3].

    Args:
        canal: float32 [study, 5, 3] from sagittal T2, or None; NaN where unknown.
        foramina: float32 [study, 10, 3] from sagittal T1, level by level and left before right,
            or None; NaN where unknown.

    Returns:
        LPS mm; the subarticular rows contain the level points.

    Raises:
        ValueError: both are None.
    """
    given = canal if canal is not None else foramina
    if given is None:
        raise ValueError("`canal` or `foramina` must be given. Received: None for both.")
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
    """Replaces the subarticular rows by the output of an axial localizer, float32 [..., 25, 3].

    Args:
        points: float32 [..., 25, 3] from `complete_points`, LPS mm.
        subarticular: float32 [..., 10, 3], level by level and left before right; where it is NaN the row
            keeps the level point.
    """
    rows = localizer_rows(Plane.AXIAL_T2)
    # One more point, NaN, for the rows that the axial localizer does not predict.
    padding = [[0, 0]] * (len(subarticular.shape) - 2) + [[0, 1], [0, 0]]
    padded = tf.pad(subarticular, padding, constant_values=float("nan"))
    found = tf.gather(
        padded, [rows.index(row) if row in rows else len(rows) for row in range(NUM_FINDINGS)], axis=-2
    )
    return tf.where(tf.math.is_finite(found), found, points)


def localizer_rows(plane: Plane) -> tuple[int, ...]:
    """Returns the rows that a plane's localizer predicts, level by level and left before right."""
    return tuple(
        finding_index(condition, level)
        for level in Level
        for condition in Condition
        if condition.family.spec.localized_on is plane
    )
