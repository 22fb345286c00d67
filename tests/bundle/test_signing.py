"""Signatures of bundles, checked against OpenSSL's own."""

import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="needs the extra `signing`")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from lumbar_tf.bundle.self_test import load_bundle
from lumbar_tf.bundle.signing import (
    find_signature_faults,
    read_signing_key,
    read_verification_key,
    sign_bundle,
)
from tests.bundle.signing_keys import write_keys

MANIFEST, SIGNATURE = "assets.extra/ensemble.json", "assets.extra/ensemble.json.sig"


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path, "mine")


@pytest.fixture
def bundle(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    """A signed manifest and an empty graph."""
    folder = tmp_path / "1"
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"")
    (folder / MANIFEST).write_text('{"members": []}', encoding="utf-8")
    sign_bundle(folder, read_signing_key(keys[0]))
    return folder


def test_a_signed_manifest_has_no_fault(bundle: Path, keys: tuple[Path, Path]) -> None:
    assert find_signature_faults(bundle, read_verification_key(keys[1])) == []
    assert (bundle / SIGNATURE).stat().st_size == 64


def test_a_changed_byte_is_found(bundle: Path, keys: tuple[Path, Path]) -> None:
    (bundle / MANIFEST).write_text('{"members":  []}', encoding="utf-8")
    (fault,) = find_signature_faults(bundle, read_verification_key(keys[1]))
    assert "is not a signature of" in fault


@pytest.mark.parametrize("content", [b"", bytes(64), bytes(65)])
def test_a_signature_that_is_none_is_found(bundle: Path, keys: tuple[Path, Path], content: bytes) -> None:
    (bundle / SIGNATURE).write_bytes(content)
    (fault,) = find_signature_faults(bundle, read_verification_key(keys[1]))
    assert "is not a signature of" in fault


def test_another_key_is_refused(bundle: Path, tmp_path: Path) -> None:
    _, other = write_keys(tmp_path, "other")
    with pytest.raises(ValueError, match=r"is not a signature of .* with the required key"):
        load_bundle(bundle, require_signature=other)


def test_an_unsigned_bundle_is_refused_where_a_signature_is_required(
    bundle: Path, keys: tuple[Path, Path]
) -> None:
    (bundle / SIGNATURE).unlink()
    with pytest.raises(ValueError, match=r"ensemble\.json\.sig is absent, and a signature is required"):
        load_bundle(bundle, require_signature=keys[1])


def test_with_the_right_key_the_other_checks_follow(bundle: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="must list the SHA-256 of every file"):
        load_bundle(bundle, require_signature=keys[1])


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_accepts_the_signature_and_its_signatures_are_accepted(
    bundle: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    pkeyutl = ["openssl", "pkeyutl", "-rawin", "-in", str(bundle / MANIFEST)]
    verify = [*pkeyutl, "-verify", "-pubin", "-inkey", str(keys[1]), "-sigfile", str(bundle / SIGNATURE)]
    subprocess.run(verify, check=True, capture_output=True)
    private, public = tmp_path / "sign.pem", tmp_path / "verify.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(private)], check=True)
    subprocess.run(["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public)], check=True)
    subprocess.run([*pkeyutl, "-sign", "-inkey", str(private), "-out", str(bundle / SIGNATURE)], check=True)
    assert find_signature_faults(bundle, read_verification_key(public)) == []


def test_keys_of_another_kind_are_refused(keys: tuple[Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "p256.pem"
    other.write_bytes(
        generate_private_key(SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    for path in (keys[1], other):
        with pytest.raises(ValueError, match="unencrypted private Ed25519 key in PEM"):
            read_signing_key(path)
    for path in (keys[0], other):
        with pytest.raises(ValueError, match="unencrypted public Ed25519 key in PEM"):
            read_verification_key(path)
    with pytest.raises(ValueError, match="file of a key must exist"):
        read_signing_key(tmp_path / "absent.pem")
