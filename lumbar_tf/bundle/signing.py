"""Ed25519 signature of a bundle (RFC 8032).

The signature is of the bytes of the manifest, `ensemble.json`, which has the SHA-256 of every other file. It
is stored beside it as 64 bytes, as `openssl pkeyutl -sign -rawin` writes it. Keys are PEM files:

    openssl genpkey -algorithm ed25519 -out sign.pem
    openssl pkey -in sign.pem -pubout -out verify.pem
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumbar_tf.files import open_regular_file
from lumbar_tf.models.bundle_folder import MANIFEST, MAX_DESCRIPTION_BYTES, SIGNATURE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_SIGNATURE_BYTES = 64
_MAX_KEY_BYTES = 1 << 16


def read_signing_key(path: Path) -> "Ed25519PrivateKey":
    """Reads a private key from an unencrypted PEM file (PKCS #8).

    Raises:
        ValueError: the file is absent or holds no such key, or `cryptography` is not installed.
    """
    serialization, ed25519 = _load_cryptography()
    key = _parse(path, "private", lambda data: serialization.load_pem_private_key(data, password=None))
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise _key_error(path, "private")
    return key


def read_verification_key(path: Path) -> "Ed25519PublicKey":
    """Reads a public key from a PEM file.

    Raises:
        ValueError: the file is absent or holds no such key, or `cryptography` is not installed.
    """
    serialization, ed25519 = _load_cryptography()
    key = _parse(path, "public", serialization.load_pem_public_key)
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise _key_error(path, "public")
    return key


def sign_bundle(folder: Path, key: "Ed25519PrivateKey") -> None:
    """Writes the signature of a bundle, whose manifest must exist already."""
    (folder / SIGNATURE).write_bytes(key.sign((folder / MANIFEST).read_bytes()))


def find_signature_faults(folder: Path, key: "Ed25519PublicKey") -> list[str]:
    """Returns why the manifest of a bundle is not signed with a key, one sentence; empty if it is."""
    from cryptography.exceptions import InvalidSignature

    signature = _read_start(folder / SIGNATURE, _SIGNATURE_BYTES)
    if signature is None:
        return [f"{SIGNATURE} is absent, and a signature is required"]
    manifest = _read_start(folder / MANIFEST, MAX_DESCRIPTION_BYTES)
    try:
        key.verify(signature, manifest or b"")
    except InvalidSignature:
        return [f"{SIGNATURE} is not a signature of {MANIFEST} with the required key"]
    return []


def _read_start(path: Path, max_bytes: int) -> bytes | None:
    """Returns at most one byte more than `max_bytes` of a regular file; None if there is none."""
    if path.is_symlink() or not path.is_file():
        return None
    with open_regular_file(path) as file:
        return file.read(max_bytes + 1)


def _load_cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise ValueError(
            "Signatures of bundles need the extra `signing`: pip install 'lumbar_tf[signing]'. Received: an "
            "environment without cryptography."
        ) from error
    return serialization, ed25519


def _parse(path: Path, kind: str, parse: Any) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    data = _read_start(path.resolve(), _MAX_KEY_BYTES)
    if data is None:
        raise ValueError(f"The file of a key must exist. Received: {path}.")
    try:
        return parse(data)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise _key_error(path, kind) from None


def _key_error(path: Path, kind: str) -> ValueError:
    return ValueError(f"The file must hold an unencrypted {kind} Ed25519 key in PEM. Received: {path}.")
