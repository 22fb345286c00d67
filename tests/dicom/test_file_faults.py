"""Every bad file of the table is refused with its reason, before or while it is decoded."""

import re
import tracemalloc
import warnings

import pytest

from lumbar_tf.dicom.files.decoders import decode_frame
from lumbar_tf.dicom.files.frames import open_image
from lumbar_tf.dicom.reasons import RejectedError
from tests.dicom.file_damage import FileFault
from tests.dicom.file_faults import FILE_FAULTS
from tests.dicom.made_files import make_file, make_pixels

GOOD = make_file(make_pixels(24, 32))
#: No bad file may cost more than a sound one of the largest size would, by far.
MAX_PEAK_BYTES = 160 << 20


def _refusal(data: bytes) -> RejectedError:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as whoever reads a study does
        with pytest.raises(RejectedError) as caught:
            image = open_image(data)
            for frame in image.frames:
                decode_frame(image, frame)
    return caught.value


def test_the_good_file_is_good() -> None:
    image = open_image(GOOD)
    assert decode_frame(image, image.frames[0]).shape == (24, 32)


@pytest.mark.parametrize("fault", FILE_FAULTS, ids=lambda fault: fault.name)
def test_bad_file_is_refused_with_its_reason(fault: FileFault) -> None:
    bad = fault.make(GOOD)
    tracemalloc.start()
    error = _refusal(bad)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.reason is fault.reason, str(error)
    assert peak < MAX_PEAK_BYTES
    # One line, which holds nothing of the header that could name a patient.
    assert "\n" not in str(error)
    assert not re.search("someone|sagittal|etc", str(error))


def test_faults_have_names_of_their_own() -> None:
    assert len({fault.name for fault in FILE_FAULTS}) == len(FILE_FAULTS) >= 45
