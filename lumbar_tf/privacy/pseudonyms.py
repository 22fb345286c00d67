"""Pseudonyms: study, series and patient ids replaced by keyed hashes.

A pseudonym is the HMAC-SHA256 (RFC 2104) of the id under a secret key. The same id gives the same pseudonym
in every run with that key, so that its owner can append to records, verify them and remove patients. Without
the key ids cannot be recovered, not even by trying all of them, as would be possible with a plain hash. If
the key is lost, pseudonyms cannot be assigned to ids again. The key is never written or shown.

Only ids and file names are replaced. Pixels, geometry and the digest of the source files are kept: the owner
of the same files can find their study in the records.
"""

import base64
import hmac
import re
from collections.abc import Iterable
from dataclasses import replace
from enum import Enum
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from lumbar_tf.dicom.reasons import Reject
from lumbar_tf.dicom.study import ImageOrigin, Slice, Study, StudyHeader
from lumbar_tf.files import decode_secret, open_regular_file

#: Length of SHA-256's output; shorter keys weaken HMAC (RFC 2104, section 3).
MIN_KEY_BYTES = 32
#: Larger files are not key files.
MAX_KEY_BYTES = 4096
_HEXADECIMAL = re.compile(rb"[0-9A-Fa-f]+")

#: Characters of a pseudonym after its two letters, 5 bits each: 100 bits. The probability of a collision
#: among n ids is n (n - 1) / 2 / 2^100 (the birthday bound): 4e-19 for a million ids.
NUM_CHARACTERS = 20

#: File names of the competition, which do not identify a hospital.
_TABLE_NAMES = frozenset(
    {
        "train.csv",
        "train_label_coordinates.csv",
        "train_series_descriptions.csv",
        "test_series_descriptions.csv",
    }
)


class IdKind(Enum):
    """Kind of an id. The value is part of the hashed text: a study and a series with the id `1` differ."""

    STUDY = "study"
    SERIES = "series"
    PATIENT = "patient"
    FILE = "file"


#: A pseudonym starts with two letters, so that spreadsheets do not interpret it as a number or formula.
_LETTERS = {IdKind.STUDY: "st", IdKind.SERIES: "se", IdKind.PATIENT: "pt", IdKind.FILE: "fi"}


def read_key(path: Path) -> bytes:
    """Reads a secret key.

    Args:
        path: a file of 32 to 4,096 random bytes, as text or binary, without counting surrounding white space,
            byte order mark and UTF-16, which editors add. `openssl rand -hex 32` makes one. Upper and lower
            case of a key in hexadecimal are the same.

    Raises:
        ValueError: the file does not exist, or is too short or too long.
    """
    rule = f"A pseudonym key must be a file of {MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes"
    if not path.is_file():
        raise ValueError(f"{rule}. Received: {str(path)!r}, which is not a file.")
    with open_regular_file(path) as file:
        key = file.read(MAX_KEY_BYTES + 1)
    if len(key) > MAX_KEY_BYTES:
        raise ValueError(f"{rule}. Received: {path.stat().st_size} bytes.")
    key = decode_secret(key)
    if _HEXADECIMAL.fullmatch(key):
        key = key.lower()
    if len(key) < MIN_KEY_BYTES:
        raise ValueError(f"{rule}, white space around them not counted. Received: {len(key)} bytes.")
    return key


def pseudonym(key: bytes, kind: IdKind, value: str) -> str:
    """Returns the pseudonym of an id.

    It consists of two letters for the kind and `NUM_CHARACTERS` characters of a-z and 2-7 (base32, RFC 4648,
    in lower case), which are safe in file names, URLs and CSV files.

    Args:
        key: see `read_key`.
        kind: kind of the id.
        value: the id, as in tables and headers.

    Raises:
        ValueError: the key is too short or the id is empty.

    >>> pseudonym(bytes(32), IdKind.STUDY, "4003253")
    'statwjocb7ocqnxz6j5zg4'
    """
    if len(key) < MIN_KEY_BYTES:
        raise ValueError(f"A pseudonym key must have {MIN_KEY_BYTES} bytes or more. Received: {len(key)}.")
    if not value:
        raise ValueError(f"A {kind.value} id must not be empty. Received: an empty text.")
    # File names may not be UTF-8. The zero byte separates the kind from the id.
    text = kind.value.encode() + b"\0" + value.encode("utf-8", "surrogateescape")
    characters = base64.b32encode(hmac.new(key, text, sha256).digest()).decode("ascii").lower()
    return _LETTERS[kind] + characters[:NUM_CHARACTERS]


def pseudonymise_study(study: Study, key: bytes) -> Study:
    """Returns a study whose ids, and those of its patient, series and files, are pseudonyms.

    Pixels, geometry, planes and the source digest are unchanged; the header is reduced to the patient's
    pseudonym. Points and labels must be joined before, because tables contain the original ids.
    """
    return replace(
        study,
        study_id=pseudonym(key, IdKind.STUDY, study.study_id),
        patient_id=_pseudonym_or_blank(key, IdKind.PATIENT, study.patient_id),
        planes={
            plane: tuple(_pseudonymise_slice(plane_slice, key) for plane_slice in slices)
            for plane, slices in study.planes.items()
        },
        series=tuple(
            replace(series, series_id=_pseudonym_or_blank(key, IdKind.SERIES, series.series_id))
            for series in study.series
        ),
        rejects=pseudonymise_rejects(study.rejects, key),
        header=None if study.header is None else _pseudonymise_header(study.header, study.patient_id, key),
    )


def _pseudonymise_slice(plane_slice: Slice, key: bytes) -> Slice:
    origin = None if plane_slice.origin is None else _pseudonymise_origin(plane_slice.origin, key)
    series_id = _pseudonym_or_blank(key, IdKind.SERIES, plane_slice.series_id)
    return replace(plane_slice, series_id=series_id, origin=origin)


def _pseudonymise_origin(origin: ImageOrigin, key: bytes) -> ImageOrigin:
    return replace(
        origin,
        sop_instance_uid=_uid_pseudonym_or_blank(key, origin.sop_instance_uid),
        series_uid=_uid_pseudonym_or_blank(key, origin.series_uid),
        frame_of_reference_uid=_uid_pseudonym_or_blank(key, origin.frame_of_reference_uid),
    )


def _pseudonymise_header(header: StudyHeader, patient_id: str, key: bytes) -> StudyHeader:
    patient = _pseudonym_or_blank(key, IdKind.PATIENT, patient_id)
    values = {"PatientID": patient, "PatientName": patient} if patient else {}
    return StudyHeader(_uid_pseudonym_or_blank(key, header.study_uid), values)


def pseudonymous_uid(key: bytes, value: str) -> str:
    """Returns the pseudonym of a UID: the UID 2.25.<UUID> (PS3.5 section B.2) of a keyed hash.

    >>> pseudonymous_uid(bytes(32), "1.2.3") == pseudonymous_uid(bytes(32), "1.2.3")
    True
    """
    digest = hmac.new(key, b"uid\0" + value.encode("utf-8", "surrogateescape"), sha256).digest()
    # Version 5 marks the hash of a name (RFC 9562 section 5.5).
    return f"2.25.{UUID(bytes=digest[:16], version=5).int}"


def _uid_pseudonym_or_blank(key: bytes, value: str) -> str:
    """Returns the UID's pseudonym, "" for an unknown UID."""
    return pseudonymous_uid(key, value) if value else ""


def pseudonymise_rejects(rejects: Iterable[Reject], key: bytes) -> tuple[Reject, ...]:
    """Returns rejects with pseudonyms; blank ids and names of the competition's tables are kept."""
    return tuple(
        replace(
            reject,
            study_id=_pseudonym_or_blank(key, IdKind.STUDY, reject.study_id),
            series_id=_pseudonym_or_blank(key, IdKind.SERIES, reject.series_id),
            file_name=reject.file_name
            if reject.file_name in _TABLE_NAMES
            else _pseudonym_or_blank(key, IdKind.FILE, reject.file_name),
        )
        for reject in rejects
    )


def _pseudonym_or_blank(key: bytes, kind: IdKind, value: str) -> str:
    """Returns the pseudonym, "" for an unknown id."""
    return pseudonym(key, kind, value) if value else ""
