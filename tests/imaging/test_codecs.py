"""Real files in many encodings, against the same image uncompressed."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from lumbar_tf.imaging.codecs import decode_stored_values


def _decode(path: Path) -> np.ndarray:
    return decode_stored_values(pydicom.dcmread(path)).astype(np.int64)


@pytest.mark.parametrize("number", range(2, 10))
def test_one_slice_in_seven_syntaxes_has_the_same_pixels(shared_data: Path, number: int) -> None:
    folder = shared_data / "formats" / "dcm_qa_ts" / "In"
    np.testing.assert_array_equal(_decode(folder / f"{number}.dcm"), _decode(folder / "1.dcm"))


@pytest.mark.parametrize("image", ["MR1", "MR4"])
@pytest.mark.parametrize("encoding", ["JPLL", "J2KR", "JLSL", "RLE"])
def test_lossless_files_equal_their_reference(shared_data: Path, image: str, encoding: str) -> None:
    folder = shared_data / "formats" / "nema_wg04"
    np.testing.assert_array_equal(
        _decode(folder / f"{image}_{encoding}.dcm"), _decode(folder / f"{image}_UNC.dcm")
    )


@pytest.mark.parametrize(("image", "tolerance"), [("MR1", 400), ("MR4", 64)])
@pytest.mark.parametrize("encoding", ["JPLY", "J2KI", "JLSN"])
def test_lossy_files_are_near_their_reference(
    shared_data: Path, image: str, encoding: str, tolerance: int
) -> None:
    folder = shared_data / "formats" / "nema_wg04"
    difference = _decode(folder / f"{image}_{encoding}.dcm") - _decode(folder / f"{image}_UNC.dcm")
    assert np.abs(difference).max() <= tolerance
