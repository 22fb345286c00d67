"""Study, series and patient ids replaced by keyed hashes.

HMAC-SHA256 (RFC 2104) of the id under a secret key: the same id gives the same pseudonym in every run
with that key, so records can be added to, checked and forgotten by whoever holds it; without the key
nobody can tell which id it was, not even by trying all ids, which a plain hash would allow. A lost key
makes the pseudonyms final. The key itself is never written and never shown.

Only ids and file names are replaced. Pixels, geometry and the digest of the source files stay: who holds
the very same files can find their study in the records.
"""

import base64
import hmac
from collections.abc import Iterable
from dataclasses import replace
from enum import Enum
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from lumbar_tf.dicom.origin import ImageOrigin, StudyHeader
from lumbar_tf.dicom.reasons import Reject
from lumbar_tf.dicom.study import Slice, Study

#: As long as SHA-256's output: shorter keys weaken HMAC (RFC 2104, section 3).
MIN_KEY_BYTES = 32
#: A key file beyond this is some other file.
MAX_KEY_BYTES = 4096

#: Characters of a pseudonym after its letters, 5 bits each: 100 bits. Two of n ids meet with the odds
#: n (n - 1) / 2 / 2^100 (the birthday bound): 4e-19 for a million ids.
NUM_CHARACTERS = 20

#: Tables are named by the competition, not by a hospital.
_TABLE_NAMES = frozenset(
    {
        "train.csv",
        "train_label_coordinates.csv",
        "train_series_descriptions.csv",
        "test_series_descriptions.csv",
    }
)


class IdKind(Enum):
    """What an id names. The value goes into the hash: a study and a series called `1` differ."""

    STUDY = "study"
    SERIES = "series"
    PATIENT = "patient"
    FILE = "file"


#: A pseudonym starts with two letters, so that no table program takes it for a number or a formula.
_LETTERS = {IdKind.STUDY: "st", IdKind.SERIES: "se", IdKind.PATIENT: "pt", IdKind.FILE: "fi"}


def read_key(path: Path) -> bytes:
    """Reads a secret key.

    Args:
        path: a file of 32 to 4,096 random bytes, as text or not; white space around them does not count.
            `openssl rand -hex 32` makes one.

    Raises:
        ValueError: there is no such file, or it is too short or too long.
    """
    rule = f"A pseudonym key must be a file of {MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes"
    if not path.is_file():
        raise ValueError(f"{rule}. Received: {str(path)!r}, which is no file.")
    with path.open("rb") as file:
        key = file.read(MAX_KEY_BYTES + 1)
    if len(key) > MAX_KEY_BYTES:
        raise ValueError(f"{rule}. Received: {path.stat().st_size} bytes.")
    key = key.strip()
    if len(key) < MIN_KEY_BYTES:
        raise ValueError(f"{rule}, white space around them not counted. Received: {len(key)} bytes.")
    return key


def pseudonym(key: bytes, kind: IdKind, value: str) -> str:
    """Returns the pseudonym of an id.

    It is two letters for the kind and `NUM_CHARACTERS` of a-z and 2-7 (base32, RFC 4648, in small
    letters): safe in file names on every system, in URLs and in CSVs.

    Args:
        key: see `read_key`.
        kind: what the id names.
        value: the id, as it stands in tables and headers.

    Raises:
        ValueError: the key is too short or the id is empty.

    >>> pseudonym(bytes(32), IdKind.STUDY, "4003253")
    'statwjocb7ocqnxz6j5zg4'
    """
    if len(key) < MIN_KEY_BYTES:
        raise ValueError(f"A pseudonym key must have {MIN_KEY_BYTES} bytes or more. Received: {len(key)}.")
    if not value:
        raise ValueError(f"A {kind.value} id must not be empty: it has no pseudonym.")
    # File names need not be UTF-8; the zero byte ends the kind, which no id can then imitate.
    text = kind.value.encode() + b"\0" + value.encode("utf-8", "surrogateescape")
    characters = base64.b32encode(hmac.new(key, text, sha256).digest()).decode("ascii").lower()
    return _LETTERS[kind] + characters[:NUM_CHARACTERS]


def pseudonymise_study(study: Study, key: bytes) -> Study:
    """Returns a study under pseudonyms: its own id, its patient's, and those of its series and files.

    Pixels, geometry, planes and the source digest are the same; of a header nothing but the patient's
    pseudonym is left. Tables name the old ids, so points and labels must be joined before.
    """
    return replace(
        study,
        study_id=pseudonym(key, IdKind.STUDY, study.study_id),
        patient_id=_known(key, IdKind.PATIENT, study.patient_id),
        planes={
            plane: tuple(_pseudonymise_slice(each, key) for each in slices)
            for plane, slices in study.planes.items()
        },
        series=tuple(
            replace(each, series_id=_known(key, IdKind.SERIES, each.series_id)) for each in study.series
        ),
        rejects=pseudonymise_rejects(study.rejects, key),
        header=None if study.header is None else _pseudonymise_header(study.header, study.patient_id, key),
    )


def _pseudonymise_slice(each: Slice, key: bytes) -> Slice:
    origin = None if each.origin is None else _pseudonymise_origin(each.origin, key)
    return replace(each, series_id=_known(key, IdKind.SERIES, each.series_id), origin=origin)


def _pseudonymise_origin(origin: ImageOrigin, key: bytes) -> ImageOrigin:
    return replace(
        origin,
        sop_instance_uid=_known_uid(key, origin.sop_instance_uid),
        series_uid=_known_uid(key, origin.series_uid),
        frame_of_reference_uid=_known_uid(key, origin.frame_of_reference_uid),
    )


def _pseudonymise_header(header: StudyHeader, patient_id: str, key: bytes) -> StudyHeader:
    patient = _known(key, IdKind.PATIENT, patient_id)
    values = {"PatientID": patient, "PatientName": patient} if patient else {}
    return StudyHeader(_known_uid(key, header.study_uid), values)


def pseudonymous_uid(key: bytes, value: str) -> str:
    """Returns the pseudonym of a UID: a UID again, the UUID of a keyed hash under 2.25 (PS3.5 section B.2).

    >>> pseudonymous_uid(bytes(32), "1.2.3") == pseudonymous_uid(bytes(32), "1.2.3")
    True
    """
    digest = hmac.new(key, b"uid\0" + value.encode("utf-8", "surrogateescape"), sha256).digest()
    # Version 5 is a name's hash; which hash it was nobody can tell from a UUID (RFC 9562 section 5.5).
    return f"2.25.{UUID(bytes=digest[:16], version=5).int}"


def _known_uid(key: bytes, value: str) -> str:
    """The UID's pseudonym; "" for one that is not known."""
    return pseudonymous_uid(key, value) if value else ""


def pseudonymise_rejects(rejects: Iterable[Reject], key: bytes) -> tuple[Reject, ...]:
    """Returns rejects under pseudonyms; blank ids stay blank, and the tables keep their names."""
    return tuple(
        replace(
            each,
            study_id=_known(key, IdKind.STUDY, each.study_id),
            series_id=_known(key, IdKind.SERIES, each.series_id),
            file_name=each.file_name
            if each.file_name in _TABLE_NAMES
            else _known(key, IdKind.FILE, each.file_name),
        )
        for each in rejects
    )


def _known(key: bytes, kind: IdKind, value: str) -> str:
    """The pseudonym; "" for an id that is not known."""
    return pseudonym(key, kind, value) if value else ""
