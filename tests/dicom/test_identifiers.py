import pytest

from lumbar_tf.dicom.identifiers import is_safe_id


@pytest.mark.parametrize("text", ["1", "1.2.840", "100206310", "a-b_c", "x" * 64])
def test_safe_ids(text: str) -> None:
    assert is_safe_id(text)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "../1", "1..2", "a/b", "a\\b", "a b", "1\n", "Ä", "x" * 65, "-rf"]
)
def test_unsafe_ids(text: str) -> None:
    assert not is_safe_id(text)
