"""The HTTP session that an archive is asked in: who asks, and whom to trust."""

from typing import Any

import requests

from lumbar_tf.interop.dicomweb_connection import DicomwebConnection, SecretFile


class _SecretAuth(requests.auth.AuthBase):
    def __init__(self, secret: SecretFile) -> None:
        self._secret = secret

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._secret.header()
        return request


class _Session(requests.Session):
    def merge_environment_settings(self, *arguments: Any, **keywords: Any) -> Any:
        """Keeps the session's own authority: requests lets REQUESTS_CA_BUNDLE win over it."""
        settings = super().merge_environment_settings(*arguments, **keywords)
        if isinstance(self.verify, str):
            settings["verify"] = self.verify
        return settings


def open_session(connection: DicomwebConnection) -> requests.Session:
    """Returns a session; nothing is sent yet.

    Raises:
        OSError: a file of the connection cannot be read.
        PacsError: the secret's file holds none.
    """
    session = _Session()
    # An archive that sends us elsewhere is a mistake in the URL, and elsewhere gets no patient and no secret.
    session.max_redirects = 0
    tls = connection.tls
    for path in (tls.ca, tls.cert, tls.key):
        if path is not None:
            path.open("rb").close()
    if tls.ca is not None:
        session.verify = str(tls.ca)
    if tls.cert is not None and tls.key is not None:
        session.cert = (str(tls.cert), str(tls.key))
    if connection.secret is not None:
        connection.secret.header()
        session.auth = _SecretAuth(connection.secret)
    return session
