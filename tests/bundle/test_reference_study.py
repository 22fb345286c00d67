from pathlib import Path

import numpy as np

from lumbar_tf.bundle import reference_study
from lumbar_tf.bundle.reference_study import MIRRORED, NOTHING, PLAIN, case_without
from lumbar_tf.dicom.geometry import SliceGeometry
from lumbar_tf.labels import Plane
from tests.bundle.write_reference_study import render_reference_study, write_study


def test_the_stored_study_is_what_the_synthetic_patients_give() -> None:
    stored, rendered = reference_study.load_reference_study(), render_reference_study()
    assert set(stored.planes) == set(rendered.planes) == set(Plane)
    assert (stored.study_id, stored.patient_id) == (rendered.study_id, rendered.patient_id)
    for plane in Plane:
        assert len(stored.planes[plane]) == len(rendered.planes[plane])
        for old, new in zip(stored.planes[plane], rendered.planes[plane], strict=True):
            assert (old.series_id, old.instance_number) == (new.series_id, new.instance_number)
            # Processors differ in the last bit of cosines and exponentials, and so in how a value is rounded.
            for name in SliceGeometry.__dataclass_fields__:
                before, after = (getattr(each.geometry, name) for each in (old, new))
                np.testing.assert_allclose(before, after, rtol=0, atol=1e-9, err_msg=name)
            assert old.pixels.dtype == new.pixels.dtype
            change = np.abs(old.pixels.astype(int) - new.pixels)
            assert change.max() <= 1 and np.count_nonzero(change) <= change.size // 1000


def test_the_file_is_what_the_documented_command_writes(tmp_path: Path) -> None:
    write_study(reference_study.load_reference_study(), tmp_path / "study.npz")
    stored_path = Path(reference_study.__file__).with_name(reference_study.FILE_NAME)
    assert (tmp_path / "study.npz").read_bytes() == stored_path.read_bytes()


def test_cases_lack_the_planes_that_they_are_named_for_and_are_the_same_each_time() -> None:
    cases = reference_study.reference_cases()
    assert cases == reference_study.reference_cases()
    assert set(cases[PLAIN]) == set(cases[MIRRORED]) == set(Plane) and not cases[NOTHING]
    for plane in Plane:
        assert set(cases[case_without(plane)]) == set(Plane) - {plane}


def test_the_sides_of_the_study_differ() -> None:
    """So a mirror image that is graded like the study itself is a detectable fault."""
    slices = reference_study.load_reference_study().planes[Plane.AXIAL_T2]
    assert any(np.abs(image.pixels.astype(int) - image.pixels[:, ::-1]).mean() > 20 for image in slices)
