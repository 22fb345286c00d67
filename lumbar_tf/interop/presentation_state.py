"""Grayscale Softcopy Presentation States that draw level points and crop outlines over the original slices.

There is one state for each series on which something is drawn. A state may refer to several series of its
study (PS3.3 section C.11.11), but it has one Modality LUT for all its images, and viewers list it with the
series on the screen. A series whose images differ in size, pixel spacing or rescale has one for each kind.

A viewer that applies a state uses the state's grayscale transformations only: one that it lacks is the
identity, whatever the image has (PS3.4 section N.2). A state therefore repeats the rescale of its images and
has a window for them, with the percentiles of the HTML report. It has no shutter and no rotation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np
from highdicom import ModalityLUTTransformation, PresentationLUTTransformation
from highdicom.color import CIELabColor
from highdicom.pr import (
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GrayscaleSoftcopyPresentationState,
    SoftcopyVOILUTTransformation,
    TextObject,
)
from pydicom.dataset import Dataset

from lumbar_tf.dicom.study import PixelScale, Slice, Study
from lumbar_tf.files import replace_atomically
from lumbar_tf.interop.output_formats import find_files
from lumbar_tf.interop.presentation_graphics import SliceGraphics
from lumbar_tf.interop.report_content import (
    anonymous_dataset,
    copy_identity,
    equipment,
    grade_findings,
    list_remarks,
    result_uid,
    series_uid,
)
from lumbar_tf.interop.source_references import SourceImage, SourceStudy, place_point_on_planes
from lumbar_tf.labels import Plane
from lumbar_tf.prediction.crop_outlines import PlaneCropOutlines
from lumbar_tf.prediction.results import StudyFindings
from lumbar_tf.reports.slice_pictures import display_window

_SERIES_NUMBER = 9904
_DESCRIPTION = "lumbar_tf points and crops, research use only"
_LABEL = "LUMBAR_TF"
#: Colours in CIELab: cyan, yellow and white.
_OUTLINES = GraphicLayer("OUTLINES", 1, "Outlines of the graded crops", CIELabColor(91, -48, -14))
_POINTS = GraphicLayer("POINTS", 2, "Level points with grades", CIELabColor(97, -22, 94))
_REMARKS = GraphicLayer("REMARKS", 3, "Purpose and training data", CIELabColor(100, 0, 0))
#: Left, top, right and bottom of the remarks in parts of the displayed area.
_REMARKS_BOX = (0.01, 0.92, 0.99, 0.99)
#: Maximum length of a Short Text (PS3.5 section 6.2).
_MAX_SHORT_TEXT = 1024


@dataclass(frozen=True, eq=False)
class _Image:
    """An image of a state with the objects that are drawn on it."""

    source: SourceImage
    slice: Slice
    graphics: SliceGraphics = field(default_factory=SliceGraphics)

    @property
    def scale(self) -> PixelScale:
        origin = self.slice.origin
        return PixelScale() if origin is None else origin.pixel_scale

    @property
    def is_drawn_on(self) -> bool:
        return bool(self.graphics.points or self.graphics.outlines)

    @property
    def kind(self) -> tuple[object, ...]:
        """Properties that all images of a state have in common."""
        geometry, scale = self.slice.geometry, self.scale
        return (
            self.source.series_uid,
            self.source.sop_class_uid,
            (geometry.rows, geometry.columns, geometry.row_spacing_mm, geometry.column_spacing_mm),
            (scale.slope, scale.intercept, -2 if scale.complement is None else scale.complement),
        )


def write_presentation_states(
    path: Path,
    source: SourceStudy,
    study: Study,
    result: StudyFindings,
    outlines: Mapping[Plane, PlaneCropOutlines],
    *,
    model: str,
) -> None:
    """Writes the presentation states atomically, and removes further ones of an earlier run.

    Args:
        path: DICOM files to write, with a `*` in the name for the number of the state, from 1.
        source: UIDs of the study and of its images.
        study: the same images with their pixels, for the window.
        result: findings of the study.
        outlines: crop outlines by plane.
        model: version of the bundle.
    """
    states = make_presentation_states(source, study, result, outlines, model=model)
    written = [path.with_name(path.name.replace("*", str(state.InstanceNumber))) for state in states]
    for old in set(find_files(path)) - set(written):
        old.unlink()
    for own, state in zip(written, states, strict=True):
        with replace_atomically(own) as temporary:
            state.save_as(temporary, enforce_file_format=True)


def make_presentation_states(
    source: SourceStudy,
    study: Study,
    result: StudyFindings,
    outlines: Mapping[Plane, PlaneCropOutlines],
    *,
    model: str,
) -> list[GrayscaleSoftcopyPresentationState]:
    """Returns the presentation states; see `write_presentation_states` for the arguments.

    A finding that no image contributed to is not drawn. The point of any other is on the nearest slice of
    each plane that its condition is graded on; see `place_point_on_planes`.
    """
    images = [image for members in _draw(source, study, result, outlines).values() for image in members]
    # Sorted by kind; images of one kind keep their order.
    ordered = sorted(images, key=lambda image: image.kind)
    groups = [list(members) for _, members in groupby(ordered, key=lambda image: image.kind)]
    drawn = [members for members in groups if any(image.is_drawn_on for image in members)]
    return [
        _make_state(source, result, members, model=model, number=number)
        for number, members in enumerate(drawn, start=1)
    ]


def _draw(
    source: SourceStudy,
    study: Study,
    result: StudyFindings,
    outlines: Mapping[Plane, PlaneCropOutlines],
) -> dict[Plane, list[_Image]]:
    """Returns the images of each plane with points and outlines."""
    planes = {
        plane: [_Image(image, item) for (_, image), item in zip(members, study.planes[plane], strict=True)]
        for plane, members in source.planes.items()
    }
    by_source = {image.source: image for members in planes.values() for image in members}
    for row, graded in enumerate(grade_findings(result)):
        if graded.grade is None:
            continue
        for place in place_point_on_planes(source, graded.finding.condition, graded.point):
            image = by_source[place.image]
            image.graphics.add_point(place, image.slice.geometry, graded, graded.grade, source)
        for plane, found in outlines.items():
            for outline in found.crops.get(row, ()):
                image = planes[plane][outline.index]
                image.graphics.add_outline(outline.corners, image.slice.geometry)
    return planes


def _make_state(
    source: SourceStudy, result: StudyFindings, images: Sequence[_Image], *, model: str, number: int
) -> GrayscaleSoftcopyPresentationState:
    files = _reference_files(source, images)
    remarks = " ".join(list_remarks(source, result))[:_MAX_SHORT_TEXT]
    annotations = [
        annotation
        for image in images
        if image.is_drawn_on
        for annotation in _annotate(image, files[image.source.sop_instance_uid], remarks)
    ]
    content = "".join(annotation.to_json() for annotation in annotations)
    scale = images[0].scale
    state = GrayscaleSoftcopyPresentationState(
        referenced_images=list(files.values()),
        series_instance_uid=series_uid("gsps", source, model),
        series_number=_SERIES_NUMBER,
        series_description=_DESCRIPTION,
        sop_instance_uid=result_uid("gsps", source, result, model, content),
        instance_number=number,
        content_label=_LABEL,
        content_description=_DESCRIPTION,
        graphic_layers=[_OUTLINES, _POINTS, _REMARKS],
        graphic_annotations=annotations,
        modality_lut_transformation=ModalityLUTTransformation(scale.intercept, scale.slope, "US"),
        voi_lut_transformations=[_window(images)],
        presentation_lut_transformation=PresentationLUTTransformation(
            # The smallest value of MONOCHROME1 is white; a viewer ignores the PhotometricInterpretation of
            # an image with a state (PS3.4 section N.2.1.4).
            presentation_lut_shape="IDENTITY" if scale.complement is None else "INVERSE"
        ),
        **equipment(model),
    )
    # The spine is no paired structure (PS3.3 section C.7.3.1).
    state.Laterality = None
    _set_frames(state, images)
    _set_displayed_area(state, images[0])
    copy_identity(state, source)
    return state


def _reference_files(source: SourceStudy, images: Sequence[_Image]) -> dict[str, Dataset]:
    """Returns what highdicom reads of the referenced files, by SOPInstanceUID."""
    files: dict[str, Dataset] = {}
    for image in images:
        own, geometry = image.source, image.slice.geometry
        dataset = files.setdefault(own.sop_instance_uid, anonymous_dataset(source))
        dataset.SOPClassUID, dataset.SOPInstanceUID = own.sop_class_uid, own.sop_instance_uid
        dataset.SeriesInstanceUID, dataset.SamplesPerPixel = own.series_uid, 1
        dataset.Rows, dataset.Columns = geometry.rows, geometry.columns
        dataset.NumberOfFrames = max(own.frame_number or 1, dataset.get("NumberOfFrames", 1))
    return files


def _annotate(image: _Image, file: Dataset, remarks: str) -> list[GraphicAnnotation]:
    """Returns the annotations of an image, one for each layer with an object."""
    graphics, frame = image.graphics, image.source.frame_number
    remark = TextObject("", "DISPLAY", bounding_box=_REMARKS_BOX, text_justification="LEFT")
    # Not as an argument: highdicom refuses a backslash, which a Short Text may have (PS3.5 section 6.2).
    remark.UnformattedTextValue = remarks
    layers: tuple[tuple[GraphicLayer, list[GraphicObject], list[TextObject]], ...] = (
        (_OUTLINES, graphics.outlines, []),
        (_POINTS, graphics.points, graphics.labels),
        (_REMARKS, [], [remark]),
    )
    return [
        GraphicAnnotation([file], layer, frame, graphic_objects=objects, text_objects=texts)
        for layer, objects, texts in layers
        if objects or texts
    ]


def _window(images: Sequence[_Image]) -> SoftcopyVOILUTTransformation:
    """Returns a window that displays the percentiles of the report's pictures as black and white."""
    pixels = np.concatenate([image.slice.pixels.ravel() for image in images])
    scale = images[0].scale
    low, high = sorted(scale.to_rescaled(value) for value in display_window(pixels))
    # Black is c - 0.5 - (w - 1) / 2 and white c - 0.5 + (w - 1) / 2 (PS3.3 section C.11.2.1.2.1).
    return SoftcopyVOILUTTransformation((low + high) / 2 + 0.5, high - low + 1)


def _set_frames(state: Dataset, images: Sequence[_Image]) -> None:
    """Restricts the references to multi-frame files to the frames of the state, which highdicom does not."""
    (series,) = state.ReferencedSeriesSequence
    for item in series.ReferencedImageSequence:
        own = (
            image.source for image in images if image.source.sop_instance_uid == item.ReferencedSOPInstanceUID
        )
        frames = sorted(source.frame_number for source in own if source.frame_number is not None)
        if frames:
            item.ReferencedFrameNumber = frames


def _set_displayed_area(state: Dataset, image: _Image) -> None:
    """Sets the pixel spacing of the displayed area: highdicom assumes square pixels."""
    (area,) = state.DisplayedAreaSelectionSequence
    geometry = image.slice.geometry
    area.PresentationPixelSpacing = [geometry.row_spacing_mm, geometry.column_spacing_mm]
    del area.PresentationPixelAspectRatio
