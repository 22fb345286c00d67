"""What tissue lies where around one disc, painted from the background forwards.

Each painter computes rough signed distances (mm, negative inside) in the spine's coordinates and
covers the patch with a tissue, with an edge as soft as a pixel. Severity enters here, as shape: a
tight canal is a small sac, a narrow foramen has no fat around its root, a crowded recess is
filled with disc.
"""

from lumbar_tf.synthetic.anatomy import Anatomy, Segment
from lumbar_tf.synthetic.bones import (
    paint_bodies,
    paint_disc,
    paint_pillar,
    paint_sacral_bone,
    paint_spinous,
    plan_distance,
)
from lumbar_tf.synthetic.canal import (
    paint_canal_fat,
    paint_foramen,
    paint_recesses,
    paint_sac,
    passage,
)
from lumbar_tf.synthetic.patch import Patch


def paint_segment(patch: Patch, anatomy: Anatomy, segment: Segment) -> None:
    """Paints everything that belongs to a motion segment, in order from the back to the front."""
    if segment.above.is_sacral or segment.below.is_sacral:
        paint_sacral_bone(patch, segment)
    if not segment.above.is_sacral:
        if part := patch.within((-15, 15), (4, 54)):
            paint_spinous(part, segment)
        for sign, recess, foramen in zip((1, -1), segment.recesses, segment.foramina):
            beside = (7.0, 27.0) if sign > 0 else (-27.0, -7.0)
            if part := patch.within(beside, (-10, 26)):
                paint_pillar(part, segment, sign=sign, growth=1.2 * (recess + foramen))
    if part := patch.within((-17, 17), (-4, 24)):
        paint_canal_fat(part, segment, passage(part, segment))
    if not segment.above.is_sacral:
        for sign, severity in zip((1, -1), segment.foramina):
            beside = (8.0, 27.0) if sign > 0 else (-27.0, -8.0)
            if part := patch.within(beside, (-6, 10)):
                paint_foramen(part, segment, sign=sign, severity=severity)
    if part := patch.within((-31, 31), (-42, 10)):
        plan = plan_distance(part, segment)
        paint_bodies(part, anatomy, segment, plan)
        paint_disc(part, segment, plan)
    if part := patch.within((-17, 17), (-4, 24)):
        sac = passage(part, segment)
        corner = paint_recesses(part, segment, sac)
        paint_sac(part, anatomy, segment, sac, corner)
