"""URL of a DICOMweb archive."""

import base64
from pathlib import Path

import pytest

from lumbar_tf.interop.dicomweb_connection import AuthenticationScheme, CredentialsFile, parse_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://pacs:8042/dicom-web/", "http://pacs:8042/dicom-web"),
        ("https://pacs", "https://pacs"),
        ("http://[::1]:8042/dicom-web", "http://[::1]:8042/dicom-web"),
    ],
)
def test_a_url_is_accepted_without_its_trailing_slash(text: str, url: str) -> None:
    assert parse_url(text) == url


@pytest.mark.parametrize(
    "text",
    ["", "pacs:8042", "ftp://pacs", "http://", "http://pacs:port/", "http://pacs/x?key=1", "http://p/#a"],
)
def test_other_text_than_the_url_of_a_service_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be http://HOST"):
        parse_url(text)


@pytest.mark.parametrize("text", ["http://user:s3cret@pacs/", "https://s3cret@pacs/dicom-web"])
def test_credentials_in_the_url_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="--dicomweb-user-file") as caught:
        parse_url(text)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_credentials_do_not_depend_on_the_editor_that_saved_them(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "user").write_bytes("user:Pässwörd\r\n".encode(encoding))
    header = CredentialsFile(tmp_path / "user", AuthenticationScheme.BASIC).header()
    assert base64.b64decode(header.removeprefix("Basic ")).decode() == "user:Pässwörd"
