"""Classification of one series or contrast by its own headers and geometry."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lumbar_tf.dicom.geometry import SliceGeometry, is_sagittal
from lumbar_tf.dicom.reasons import RejectReason
from lumbar_tf.dicom.series.body_region import is_elsewhere
from lumbar_tf.dicom.series.header import SeriesHeader
from lumbar_tf.dicom.series.image_kinds import Component, DixonPart, is_diffusion_weighted
from lumbar_tf.dicom.series.series_description_patterns import Weighting, mentions_derived, mentions_localizer
from lumbar_tf.dicom.series.weighting import classify_weighting, is_fat_suppressed
from lumbar_tf.labels import Plane

#: ImageType and FrameType values of images computed from other images (DICOM PS3.3 C.7.6.1.1.2, C.8.3.1.1.1,
#: C.8.13.1.1.1 and the vendors' conformance statements), in whole. Value 1 alone is not sufficient: scanners
#: label the output of their own filters DERIVED\PRIMARY.
_DERIVED_TYPES = frozenset(
    ("MPR", "REFORMATTED", "MOSAIC", "VFRAME", "RESAMPLED", "CURVED", "VRT", "SSD", "COMPOSED", "COMBINED")
    + ("MIP", "MIN_IP", "MAX_IP", "COMP_SP", "COMP_AD", "COMP_MIP", "POSDISP", "SCREEN_SAVE")
    + ("ADC", "EADC", "EXP", "TRACE", "TRACEW", "FA", "COLFA", "TENSOR", "TENSOR_B0", "DTI", "IVIM")
    + ("ADDITION", "DIVISION", "MASKED", "MAXIMUM", "MEAN", "MINIMUM", "MULTIPLICATION", "QUANTITY")
    + ("STD_DEVIATION", "FAT", "FF", "R2", "R2STAR", "CBF", "CBV", "RCBV", "MTT", "TTP", "PBP")
    + ("PHASE", "IMAGINARY", "VELOCITY")
)
#: Parts of such values: T2_MAP and METABOLITE_MAP, FAT_FRACTION, MODULUS_SUBTRACT, PROJECTION_IMAGE, ...
_DERIVED_PART = re.compile(
    r"MAPS?$|METABOL|SPECTR|FRACTION|RATIO|SUBTR|IMAGE_ADDITION|PROJECTION|^CSA_|^MPR_|KTRANS"
)


@dataclass(frozen=True, eq=False)
class SeriesCandidate:
    """A series, or one of its contrasts, before its pixels are decoded.

    Attributes:
        series_id: id of the series, as in tables.
        header: header of its images.
        geometries: geometries of all readable slices.
        contrast: name of the contrast, "" for a series of one.
        places: numbers of the places that the contrasts of its series show.
        is_repetition: whether it consists of later time points of another contrast.
    """

    series_id: str
    header: SeriesHeader
    geometries: Sequence[SliceGeometry]
    contrast: str = ""
    places: frozenset[int] = frozenset()
    is_repetition: bool = False

    @property
    def key(self) -> str:
        """Series id, with the contrast if it has a name."""
        return f"{self.series_id} ({self.contrast})" if self.contrast else self.series_id


@dataclass(frozen=True)
class SeriesDecision:
    """Decision about a series.

    Attributes:
        plane: plane that the series is used as, None if it is excluded.
        reason: reason of the exclusion, None if the series is used.
        message: rule that excluded the series, "" if it is used.
        notes: reason and message of each contradiction that did not change the decision.
    """

    plane: Plane | None
    reason: RejectReason | None
    message: str
    notes: tuple[tuple[RejectReason, str], ...] = ()


def stack_kind(header: SeriesHeader) -> tuple[object, ...]:
    """Returns the properties in which images of one stack agree."""
    return (
        header.component,
        header.dixon_part,
        round(header.b_value or 0.0),
        _is_localizer(header),
        _is_derived(header),
        classify_weighting(header)[0],
        is_fat_suppressed(header),
    )


def plane_of(sagittal: bool | None, weighting: Weighting | None) -> Plane | None:
    """Returns the plane of a series with an orientation and a weighting, None if it is not graded."""
    if sagittal is None or weighting not in (Weighting.T1, Weighting.T2):
        return None
    if sagittal:
        return Plane.SAGITTAL_T2 if weighting is Weighting.T2 else Plane.SAGITTAL_T1
    return Plane.AXIAL_T2 if weighting is Weighting.T2 else None


def is_gradable_kind(header: SeriesHeader) -> bool:
    """Returns whether images show magnitude, and neither fat only, opposed phase nor diffusion."""
    is_usual_part = header.dixon_part not in (DixonPart.FAT, DixonPart.OPPOSED_PHASE)
    is_magnitude = header.component is Component.MAGNITUDE
    return is_magnitude and is_usual_part and not is_diffusion_weighted(header.b_value)


def classify_series(
    candidate: SeriesCandidate,
    series: Sequence[SeriesCandidate],
    *,
    spine_mm: tuple[float, float] | None = None,
) -> SeriesDecision:
    """Decides from headers and geometry alone; the first applicable rule decides.

    Args:
        candidate: a contrast.
        series: all contrasts of its series.
        spine_mm: see `body_region.find_spine`.
    """
    header = candidate.header
    orientations = {is_sagittal(geometry) for item in series for geometry in item.geometries}
    if _is_localizer(header):
        return _exclude(RejectReason.LOCALIZER, "ImageType or description indicate a localiser")
    if len(orientations) > 1:
        message = "a localiser: one series with slices of several orientations (sagittal, axial, coronal)"
        return _exclude(RejectReason.LOCALIZER, message)
    if header.component is not Component.MAGNITUDE:
        message = f"the {header.component.value} of the complex signal; only the magnitude is graded"
        return _exclude(RejectReason.DERIVED, message)
    if header.dixon_part in (DixonPart.FAT, DixonPart.OPPOSED_PHASE):
        message = f"the image of a Dixon family with {header.dixon_part.value}; the in-phase image is graded"
        return _exclude(RejectReason.DERIVED, message)
    if _is_derived(header):
        return _exclude(RejectReason.DERIVED, "ImageType or description indicate a derived image")
    if is_elsewhere(header, candidate.geometries, spine_mm):
        return _exclude(RejectReason.NOT_LUMBAR, "body part or description indicate another part of the body")
    sagittal = next(iter(orientations), None)
    if sagittal is None:
        return _exclude(RejectReason.UNKNOWN_PLANE, "slices must be sagittal or axial, within 60 degrees")
    if any(is_diffusion_weighted(item.header.b_value) for item in series):
        return _exclude(RejectReason.UNKNOWN_WEIGHTING, "the series is diffusion-weighted")
    weighting, is_contradicted = classify_weighting(header)
    if header.dixon_part is DixonPart.WATER and weighting is not Weighting.T2:
        message = "the water-only image of a Dixon family is graded as T2 with fat suppression only"
        return _exclude(RejectReason.UNKNOWN_WEIGHTING, message)
    plane = plane_of(sagittal, weighting)
    if plane is None:
        return _exclude(RejectReason.UNKNOWN_WEIGHTING, _weighting_message(sagittal, weighting))
    message = f"description: {weighting and weighting.value}, contradicted by echo and repetition time"
    notes = ((RejectReason.WEIGHTING_CONTRADICTION, message),) if is_contradicted else ()
    return SeriesDecision(plane, None, "", notes)


def _exclude(reason: RejectReason, message: str) -> SeriesDecision:
    return SeriesDecision(None, reason, message)


def _weighting_message(sagittal: bool, weighting: Weighting | None) -> str:
    if weighting is None:
        return (
            "neither the description nor echo, repetition and inversion time determine whether it is T1 or T2"
        )
    if weighting is Weighting.T1 and not sagittal:
        return "axial T1 is not graded"
    return "the weighting is neither T1 nor T2 of a spin echo"


def _is_localizer(header: SeriesHeader) -> bool:
    return "LOCALIZER" in header.image_type or mentions_localizer(header.description or header.protocol)


def _is_derived(header: SeriesHeader) -> bool:
    types = {value.replace(" ", "_") for value in header.image_type}
    # SECONDARY: created after the examination (PS3.3 C.7.6.1.1.2), so not by the scanner's own filter.
    is_computed = (
        bool(types & _DERIVED_TYPES)
        or any(_DERIVED_PART.search(value) for value in types)
        or header.image_type[:2] == ("DERIVED", "SECONDARY")
    )
    return is_computed or mentions_derived(header.description or header.protocol)
