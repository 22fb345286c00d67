"""Measurement groups (TID 1501) of the structured report, one per finding.

The group of a finding that a viewer can draw has one measurement with a point on an image: the probability of
the most probable grade. OHIF 3.12 labels the point with all measurements of the group, so the probabilities
of all grades and their bounds are in a container inside the group.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ContainerContentItem,
    CoordinatesForMeasurement,
    CoordinatesForMeasurement3D,
    FindingSite,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TrackingIdentifier,
)
from highdicom.sr.value_types import ContentItem, ContentSequence

from lumbar_tf.interop.codes import (
    LIMITATION,
    MOST_PROBABLE,
    PERCENT,
    PREDICTION_SET,
    PROBABILITY_SET,
    SET_COVERAGE,
    bound_codes,
    finding_code,
    finding_probability_code,
    flag_code,
    grade_code,
    level_code,
    probability_code,
    side_code,
    site_code,
)
from lumbar_tf.interop.report_content import MANUFACTURER, GradedFinding, software_version, to_percent
from lumbar_tf.interop.source_references import (
    ImagePoint,
    SourceImage,
    SourceStudy,
    derived_uid,
    nearest_images,
    place_points_on_images,
)
from lumbar_tf.labels import Code, Severity


@dataclass(frozen=True, eq=False)
class MeasurementGroups:
    """Measurement groups of a study's findings.

    Attributes:
        drawn: groups with a point on an image; those of the series with most points come first.
        others: all other groups.
    """

    drawn: list[MeasurementsAndQualitativeEvaluations]
    others: list[MeasurementsAndQualitativeEvaluations]


def make_groups(source: SourceStudy, findings: Sequence[GradedFinding], model: str) -> MeasurementGroups:
    """Returns the measurement groups of all findings.

    Args:
        source: references to the images.
        findings: content of the groups.
        model: version of the bundle.
    """
    places = place_points_on_images(source, [(graded.finding.condition, graded.point) for graded in findings])
    drawn: list[tuple[ImagePoint, MeasurementsAndQualitativeEvaluations]] = []
    others = []
    for graded, place in zip(findings, places, strict=True):
        # A finding that no image contributed to has no grade, and is drawn on none.
        if place is not None and graded.grade is not None:
            drawn.append((place, _group(source, graded, model, [_headline(graded, graded.grade, place)])))
        else:
            others.append(_group(source, graded, model, []))
    num_points = Counter(place.image.series_uid for place, _ in drawn)
    drawn.sort(key=lambda pair: -num_points[pair[0].image.series_uid])
    return MeasurementGroups([group for _, group in drawn], others)


def _group(
    source: SourceStudy, graded: GradedFinding, model: str, measurements: Sequence[Measurement]
) -> MeasurementsAndQualitativeEvaluations:
    condition, level = graded.finding.condition, graded.finding.level
    images = nearest_images(source, condition, graded.point)
    side = condition.side
    site = FindingSite(
        anatomic_location=coded_concept(site_code(condition)),
        laterality=coded_concept(side_code(side)) if side else None,
        topographical_modifier=coded_concept(level_code(level)),
    )
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            # The same in every report on this study, whatever the model.
            uid=derived_uid("finding", source.study_uid, graded.finding.name),
            identifier=graded.title,
        ),
        finding_type=coded_concept(finding_code(condition)),
        finding_sites=[site],
        algorithm_id=AlgorithmIdentification(name=MANUFACTURER, version=software_version(model)),
        measurements=measurements,
        qualitative_evaluations=_evaluations(graded),
        source_images=[_image(image) for image in images],
    )
    if graded.probability:
        # TID 1501 is extensible.
        group[0].ContentSequence.append(_probability_set(graded, images))
    return group


def _headline(graded: GradedFinding, grade: Severity, place: ImagePoint) -> Measurement:
    """Returns the probability of the most probable grade, inferred from the point on an image."""
    image = place.image
    point = CoordinatesForMeasurement(
        graphic_type="POINT",
        # The corner of the first pixel is 0\0, so its centre is 0.5\0.5 (PS3.3 section C.18.6).
        graphic_data=np.array([[place.column + 0.5, place.row + 0.5]]),
        source_image=SourceImageForRegion(image.sop_class_uid, image.sop_instance_uid, _frames(image)),
    )
    name = coded_concept(finding_probability_code(graded.finding, grade))
    value = to_percent(graded.probability[grade])
    return Measurement(name, value, coded_concept(PERCENT), referenced_coordinates=[point])


def _probability_set(graded: GradedFinding, images: Sequence[SourceImage]) -> ContainerContentItem:
    """Returns the probability of each grade, inferred from the level point, and bounds and coverage."""
    points = [_point(graded, images[0])] if images else None
    unit = coded_concept(PERCENT)
    items = []
    for severity, value in graded.probability.items():
        code = coded_concept(probability_code(severity))
        items.extend(Measurement(code, to_percent(value), unit, referenced_coordinates=points))
    for severity, bounds in graded.bounds.items():
        for code, value in zip(bound_codes(severity), bounds, strict=True):
            items.extend(Measurement(coded_concept(code), to_percent(value), unit))
    if graded.set_coverage is not None:
        items.extend(Measurement(coded_concept(SET_COVERAGE), to_percent(graded.set_coverage), unit))
    return contained(coded_concept(PROBABILITY_SET), items)


def _point(graded: GradedFinding, image: SourceImage) -> CoordinatesForMeasurement3D:
    """Returns the level point, LPS mm, in the frame of reference of an image."""
    return CoordinatesForMeasurement3D(
        graphic_type="POINT",
        graphic_data=np.asarray(graded.point, np.float32)[np.newaxis],
        frame_of_reference_uid=image.frame_of_reference_uid,
    )


def _evaluations(graded: GradedFinding) -> list[QualitativeEvaluation]:
    """Returns the most probable grade, the grades of the prediction set, and the limitations."""
    pairs = [] if graded.grade is None else [(MOST_PROBABLE, grade_code(graded.grade))]
    pairs += [(PREDICTION_SET, grade_code(severity)) for severity in graded.prediction_set]
    pairs += [(LIMITATION, flag_code(flag)) for flag in graded.flags]
    return [QualitativeEvaluation(coded_concept(name), coded_concept(value)) for name, value in pairs]


def _image(image: SourceImage) -> SourceImageForMeasurementGroup:
    return SourceImageForMeasurementGroup(image.sop_class_uid, image.sop_instance_uid, _frames(image))


def _frames(image: SourceImage) -> list[int] | None:
    return None if image.frame_number is None else [image.frame_number]


def coded_concept(code: Code) -> CodedConcept:
    """Returns a code as highdicom takes it."""
    return CodedConcept(code.value, code.scheme.value, code.meaning)


def contained(name: CodedConcept, items: Sequence[ContentItem]) -> ContainerContentItem:
    """Returns a container of separate items, whose names a viewer therefore shows."""
    container = ContainerContentItem(
        name=name, is_content_continuous=False, relationship_type=RelationshipTypeValues.CONTAINS
    )
    container.ContentSequence = ContentSequence(items)
    return container
