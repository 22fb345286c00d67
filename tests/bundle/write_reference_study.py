"""Writer of the bundle's reference study: `python -m tests.bundle.write_reference_study [FILE]`.

Renders one synthetic study from a fixed seed and stores it, by default as package data of `lumbar_tf.bundle`.
"""

import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from lumbar_tf.bundle import reference_study
from lumbar_tf.dicom.study import Slice, Study
from lumbar_tf.labels import Plane
from lumbar_tf.synthetic import CohortOptions, render_slice
from lumbar_tf.synthetic.cohort import draw_study
from lumbar_tf.synthetic.dicom_writer import to_stored_values

#: A study with severe findings, more of them on the left; three planes of one series each.
COHORT = CohortOptions(num_studies=1, seed=6, severity_shift=0.6)


def render_reference_study() -> Study:
    """Renders the study; the result depends on nothing but the processor's rounding."""
    drawn, rng = draw_study(COHORT, 0)
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
    return Study(study_id=reference_study.STUDY_ID, patient_id="", planes=planes)


def write_study(study: Study, path: Path) -> None:
    """Writes a study in the layout that `reference_study.load_reference_study` reads."""
    arrays: dict[str, NDArray[Any]] = {}
    for plane, slices in study.planes.items():
        images = [np.frombuffer(imagecodecs.jpegls_encode(image.pixels), np.uint8) for image in slices]
        geometries = [image.geometry for image in slices]
        columns = {
            "images": np.concatenate(images),
            "image_bytes": np.array([len(image) for image in images]),
            "position": np.array([geometry.position for geometry in geometries]),
            "row_direction": np.array([geometry.row_direction for geometry in geometries]),
            "column_direction": np.array([geometry.column_direction for geometry in geometries]),
            "spacing_mm": np.array(
                [(geometry.row_spacing_mm, geometry.column_spacing_mm) for geometry in geometries]
            ),
            "series_id": np.array([image.series_id for image in slices]),
            "instance_number": np.array([image.instance_number for image in slices]),
        }
        arrays.update({f"{plane.value}/{name}": values for name, values in columns.items()})
    np.savez(path, **arrays)


if __name__ == "__main__":
    default = Path(reference_study.__file__).with_name(reference_study.FILE_NAME)
    write_study(render_reference_study(), Path(sys.argv[1]) if len(sys.argv) > 1 else default)
