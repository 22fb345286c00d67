"""Reference study: the stored synthetic study that the self-test of every bundle grades.

It tests whether a bundle works, not how well it grades: the predictions for a synthetic study need not be
right for a bundle that was trained on patients, but those for its mirror image must be the mirrored ones.

`reference_study.npz` holds the study. `python -m tests.bundle.write_reference_study` renders it again from
the synthetic patients, and a test compares the two. The images are JPEG-LS (lossless), because their noise
leaves little else to compress.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.resources import files

import imagecodecs
import numpy as np

from lumbar_tf.dicom.geometry import SliceGeometry, mirror_geometry
from lumbar_tf.dicom.study import Slice, Study
from lumbar_tf.labels import Plane
from lumbar_tf.records.schema import PixelEncoding, encode_plane

FILE_NAME = "reference_study.npz"
#: The cases of the parity file.
PLAIN, MIRRORED, NOTHING = "plain", "mirrored", "no plane"
_WITHOUT = "without "
#: Identifier in the records of every parity file since the first export.
STUDY_ID = "known"


def case_without(plane: Plane) -> str:
    """Returns the name of the case in which a plane is missing."""
    return f"{_WITHOUT}{plane.value}"


def load_reference_study() -> Study:
    """Loads the study: three planes of one series each; findings are worse on the left."""
    with files("lumbar_tf.bundle").joinpath(FILE_NAME).open("rb") as file:
        arrays = dict(np.load(file, allow_pickle=False))
    planes = {plane: tuple(_read_slices(arrays, plane)) for plane in Plane}
    return Study(study_id=STUDY_ID, patient_id="", planes=planes)


def _read_slices(arrays: Mapping[str, np.ndarray], plane: Plane) -> Iterator[Slice]:
    def array(name: str) -> np.ndarray:
        return arrays[f"{plane.value}/{name}"]

    ends = np.cumsum(array("image_bytes"))
    for number, image in enumerate(np.split(array("images"), ends[:-1])):
        pixels = imagecodecs.jpegls_decode(image.tobytes())
        row_spacing_mm, column_spacing_mm = array("spacing_mm")[number].tolist()
        geometry = SliceGeometry(
            position=tuple(array("position")[number].tolist()),
            row_direction=tuple(array("row_direction")[number].tolist()),
            column_direction=tuple(array("column_direction")[number].tolist()),
            row_spacing_mm=row_spacing_mm,
            column_spacing_mm=column_spacing_mm,
            rows=pixels.shape[0],
            columns=pixels.shape[1],
        )
        yield Slice(
            geometry,
            pixels,
            series_id=str(array("series_id")[number]),
            instance_number=int(array("instance_number")[number]),
        )


def mirror_study(study: Study) -> Study:
    """Returns the study of a mirrored patient: the same pixels at -x."""
    planes = {
        plane: tuple(replace(image, geometry=mirror_geometry(image.geometry)) for image in slices)
        for plane, slices in study.planes.items()
    }
    return replace(study, planes=planes)


def reference_cases() -> dict[str, Mapping[Plane, bytes]]:
    """Returns the serialized Examples by plane of each case.

    The plain study has uncompressed images and the others PNG, so that both decoders are tested.
    """
    study = load_reference_study()
    png = _encode(study, PixelEncoding.PNG)
    without = {
        case_without(plane): {other: example for other, example in png.items() if other is not plane}
        for plane in Plane
    }
    return {
        PLAIN: _encode(study, PixelEncoding.RAW),
        MIRRORED: _encode(mirror_study(study), PixelEncoding.PNG),
        **without,
        NOTHING: {},
    }


def _encode(study: Study, codec: PixelEncoding) -> dict[Plane, bytes]:
    return {
        plane: encode_plane(study.study_id, plane, slices, codec=codec)
        for plane, slices in study.planes.items()
    }
