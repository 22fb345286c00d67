"""The synthetic study that every bundle is asked about: as it is, mirrored, and with planes missing.

It is drawn and rendered from a fixed seed. It says whether a bundle works, not whether it grades well: one
that was trained on patients may make nothing of a phantom, and still must answer it, and its mirror image the
other way round.
"""

from collections.abc import Mapping
from dataclasses import replace

from lumbar_tf.dicom.geometry import mirror_geometry
from lumbar_tf.dicom.study import Slice, Study
from lumbar_tf.labels import Plane
from lumbar_tf.records.schema import PixelEncoding, encode_plane
from lumbar_tf.synthetic import CohortOptions, render_slice
from lumbar_tf.synthetic.cohort import draw_study
from lumbar_tf.synthetic.dicom_writer import to_stored_values

#: Each case of the parity file, in its order.
PLAIN, MIRRORED, NOTHING = "plain", "mirrored", "no plane"
_WITHOUT = "without "
#: Drawn sick, and more so on the left; all three planes, one series each.
_COHORT = CohortOptions(num_studies=1, seed=6, severity_shift=0.6)


def case_without(plane: Plane) -> str:
    """Returns the name of the case that misses a plane."""
    return f"{_WITHOUT}{plane.value}"


def reference_study() -> Study:
    """Renders the study; the same on every call, up to how a processor rounds."""
    drawn, rng = draw_study(_COHORT, 0)
    planes: dict[Plane, tuple[Slice, ...]] = {}
    for ordinal, plan in enumerate(drawn.plans, start=1):
        slices = tuple(
            Slice(
                geometry,
                to_stored_values(
                    render_slice(drawn.anatomy, geometry, plan.acquisition, rng=rng), peak=plan.peak
                ),
                series_id=str(ordinal),
                instance_number=number,
            )
            for number, geometry in plan.slices
        )
        planes[plan.plane] = planes.get(plan.plane, ()) + slices
    return Study(study_id="known", patient_id="", planes=planes)


def mirror_study(study: Study) -> Study:
    """Returns the study of the same person in a mirror: the same pixels, at -x."""
    planes = {
        plane: tuple(replace(each, geometry=mirror_geometry(each.geometry)) for each in slices)
        for plane, slices in study.planes.items()
    }
    return replace(study, planes=planes)


def reference_cases() -> dict[str, Mapping[Plane, bytes]]:
    """Returns serialized Examples by plane for each case, by its name.

    The plain study is held raw and all others as PNG, so that both ways of decoding are asked.
    """
    study = reference_study()
    mirrored = mirror_study(study)
    raw, packed, turned = (
        {
            plane: encode_plane(each.study_id, plane, slices, codec=codec)
            for plane, slices in each.planes.items()
        }
        for each, codec in (
            (study, PixelEncoding.RAW),
            (study, PixelEncoding.PNG),
            (mirrored, PixelEncoding.PNG),
        )
    )
    without = {
        case_without(plane): {other: each for other, each in packed.items() if other is not plane}
        for plane in Plane
    }
    return {PLAIN: raw, MIRRORED: turned, **without, NOTHING: {}}
