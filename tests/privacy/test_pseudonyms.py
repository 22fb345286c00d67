from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbar_tf.dicom.reasons import Reject, RejectReason
from lumbar_tf.dicom.study import ImageOrigin, SeriesSummary, Slice, Study, StudyHeader
from lumbar_tf.labels import Plane
from lumbar_tf.privacy.pseudonyms import (
    IdKind,
    pseudonym,
    pseudonymise_rejects,
    pseudonymise_study,
    pseudonymous_uid,
    read_key,
)

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))


def _study(make_slice: Callable[..., Slice]) -> Study:
    slices = tuple(make_slice((x, 0.0, 0.0), series_id="1.2.840.77") for x in (0.0, 4.0))
    summary = SeriesSummary("1.2.840.77", Plane.SAGITTAL_T2, "", 2, 6, 8, 0.5, 0.75, 4.0)
    rejects = (Reject("4003253", "1.2.840.77", "DOE/7.dcm", RejectReason.TRUNCATED, "the rule"),)
    return Study("4003253", "DOE-1", {Plane.SAGITTAL_T2: slices}, (summary,), rejects, "digest")


def test_a_pseudonym_is_what_openssl_computes() -> None:
    # printf 'study\0004003253' | openssl dgst -sha256 -mac HMAC -macopt hexkey:000102..1f -binary | base32
    assert pseudonym(KEY, IdKind.STUDY, "4003253") == "stbhn4t54x5kv2njvzz3yj"
    assert pseudonym(KEY, IdKind.SERIES, "4003253") == "sevcfaedkmnlvvrnml3xim"


@given(st.text(min_size=1), st.sampled_from(IdKind))
def test_a_pseudonym_is_a_short_plain_word_that_depends_on_the_key(value: str, kind: IdKind) -> None:
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return
    name = pseudonym(KEY, kind, value)
    assert len(name) == 22
    assert name.isascii() and name.isalnum() and name == name.lower()
    assert name != pseudonym(OTHER_KEY, kind, value)
    assert name == pseudonym(KEY, kind, value)


def test_no_two_of_many_ids_meet() -> None:
    names = {pseudonym(KEY, kind, str(number)) for number in range(20_000) for kind in IdKind}
    assert len(names) == 20_000 * len(IdKind)


def test_the_kind_cannot_be_imitated_by_an_id() -> None:
    assert pseudonym(KEY, IdKind.STUDY, "\0001")[2:] != pseudonym(KEY, IdKind.STUDY, "1")[2:]
    assert len({pseudonym(KEY, kind, "1")[2:] for kind in IdKind}) == len(IdKind)


def test_a_name_that_is_no_utf8_has_a_pseudonym() -> None:
    assert pseudonym(KEY, IdKind.FILE, "caf\udce9.dcm") != pseudonym(KEY, IdKind.FILE, "café.dcm")


@pytest.mark.parametrize(("key", "value"), [(KEY[:31], "1"), (KEY, "")])
def test_a_short_key_and_an_empty_id_are_refused(key: bytes, value: str) -> None:
    with pytest.raises(ValueError, match="must"):
        pseudonym(key, IdKind.STUDY, value)


def test_white_space_around_a_key_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\n " + b"k" * 32 + b"\r\n")
    assert read_key(tmp_path / "key") == b"k" * 32


@pytest.mark.parametrize("content", [b"", b"secret-of-thirty-one-characters\n\n", b"secret" * 1000])
def test_a_key_of_the_wrong_size_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="32 to 4096 bytes") as error:
        read_key(path)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("name", ["absent", "."])
def test_a_key_that_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a file"):
        read_key(tmp_path / name)


def test_a_study_under_pseudonyms_holds_none_of_its_ids(make_slice: Callable[..., Slice]) -> None:
    study = _study(make_slice)
    hidden = pseudonymise_study(study, KEY)
    text = repr((hidden.study_id, hidden.patient_id, hidden.series, hidden.rejects)) + repr(
        [each.series_id for slices in hidden.planes.values() for each in slices]
    )
    for secret in ("4003253", "DOE", "1.2.840", "7.dcm", KEY.hex(), repr(KEY)):
        assert secret not in text


def test_a_study_under_pseudonyms_keeps_its_pictures_and_its_links(make_slice: Callable[..., Slice]) -> None:
    study = _study(make_slice)
    hidden = pseudonymise_study(study, KEY)
    slices = hidden.planes[Plane.SAGITTAL_T2]
    for before, after in zip(study.planes[Plane.SAGITTAL_T2], slices, strict=True):
        assert after.geometry == before.geometry
        np.testing.assert_array_equal(after.pixels, before.pixels)
        assert after.instance_number == before.instance_number
    assert (
        {each.series_id for each in slices} == {hidden.series[0].series_id} == {hidden.rejects[0].series_id}
    )
    assert hidden.rejects[0].study_id == hidden.study_id == pseudonym(KEY, IdKind.STUDY, "4003253")
    assert hidden.source_digest == study.source_digest
    assert pseudonymise_study(study, KEY).rejects == hidden.rejects


def test_a_header_under_pseudonyms_names_nobody_and_uids_stay_uids(make_slice: Callable[..., Slice]) -> None:
    origin = ImageOrigin("1.2.840.10008.5.1.4.1.1.4", "1.2.840.77.1", "1.2.840.77", "", frame_number=3)
    plain = _study(make_slice)
    slices = tuple(replace(each, origin=origin) for each in plain.planes[Plane.SAGITTAL_T2])
    header = StudyHeader("1.2.840.7", {"PatientName": "DOE^J", "PatientID": "DOE-1", "StudyDate": "20240513"})
    hidden = pseudonymise_study(replace(plain, planes={Plane.SAGITTAL_T2: slices}, header=header), KEY)
    after = hidden.planes[Plane.SAGITTAL_T2][0].origin
    assert after is not None and hidden.header is not None
    for uid in (after.sop_instance_uid, after.series_uid, hidden.header.study_uid):
        # PS3.5 section B.2: a UUID as one decimal number under 2.25.
        assert uid.startswith("2.25.") and int(uid.removeprefix("2.25.")) < 2**128
    assert len({after.sop_instance_uid, after.series_uid, hidden.header.study_uid}) == 3
    assert after.sop_instance_uid == pseudonymous_uid(KEY, "1.2.840.77.1")
    assert after.sop_instance_uid != pseudonymous_uid(OTHER_KEY, "1.2.840.77.1")
    assert (after.sop_class_uid, after.frame_of_reference_uid) == (origin.sop_class_uid, "")
    assert after.frame_number == 3
    name = pseudonym(KEY, IdKind.PATIENT, "DOE-1")
    assert hidden.header.values == {"PatientName": name, "PatientID": name}


def test_what_is_unknown_stays_unknown(make_slice: Callable[..., Slice]) -> None:
    study = replace(_study(make_slice), patient_id="", rejects=())
    assert pseudonymise_study(study, KEY).patient_id == ""
    unknown = Reject("", "", "", RejectReason.EMPTY_FOLDER, "the rule")
    assert pseudonymise_rejects([unknown], KEY) == (unknown,)


def test_a_table_keeps_its_name() -> None:
    reject = Reject("4", "", "train.csv", RejectReason.BAD_TABLE_ROW, "the rule")
    (hidden,) = pseudonymise_rejects([reject], KEY)
    assert hidden.file_name == "train.csv"
    assert hidden.study_id != "4"


@pytest.mark.parametrize("name", ["bom", "crlf", "nolf", "upper", "utf16"])
def test_one_key_saved_by_several_programs_is_one_key(shared_data: Path, name: str) -> None:
    folder = shared_data.parent / "cases" / "keys"
    assert read_key(folder / f"{name}.key") == read_key(folder / "lf.key")


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path: Path) -> None:
    text = "8d5f0c0e5f2d4a6b9c7e1f3a5b7d9e0f"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le"):
        for saved in (text, text.upper(), f"{text}\r\n"):
            (tmp_path / "key").write_bytes(saved.encode(encoding))
            assert read_key(tmp_path / "key") == text.encode()
    # A mark and 15 characters are not 32 bytes of a secret.
    (tmp_path / "key").write_bytes(text[:15].encode("utf-16"))
    with pytest.raises(ValueError, match="Received: 15 bytes"):
        read_key(tmp_path / "key")


def test_the_case_of_a_key_that_is_not_hexadecimal_counts(tmp_path: Path) -> None:
    keys = []
    for text in ("Correct-Horse-Battery-Staple-0001", "correct-horse-battery-staple-0001"):
        (tmp_path / "key").write_text(text)
        keys.append(read_key(tmp_path / "key"))
    assert keys[0] != keys[1]
