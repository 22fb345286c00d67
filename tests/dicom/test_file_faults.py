"""Rejection of every faulty file with its reason, before or during decoding."""

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
#: Limit of any faulty file, far below the cost of a valid file of the largest size.
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
def test_a_bad_file_is_rejected_with_its_reason(fault: FileFault) -> None:
    bad = fault.make(GOOD)
    tracemalloc.start()
    error = _refusal(bad)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.reason is fault.reason, str(error)
    assert peak < MAX_PEAK_BYTES
    # One line, without header values that could identify a patient.
    assert "\n" not in str(error)
    assert not re.search("someone|sagittal|etc", str(error))


def test_names_of_faults_are_distinct() -> None:
    assert len({fault.name for fault in FILE_FAULTS}) == len(FILE_FAULTS) >= 45
