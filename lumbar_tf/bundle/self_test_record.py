"""Record of the self-tests that bundles have passed on this machine, in the user's cache folder.

The self-test takes seconds, and its outcome depends on the bundle's files, on the packages that run them and
on the processor. A test that was passed is recorded under these, and is not repeated while they stay the
same. Signature, digests of files and operations of the graph are checked on every load and never recorded.

Whoever can write to the user's cache folder can skip the self-test. It finds accidents, not intent, and the
checks against intent do not depend on this record. A record that is damaged, has other content, belongs to
another user or can be written by others counts as none.
"""

import hashlib
import json
import logging
import os
import platform
import stat
from collections.abc import Mapping
from pathlib import Path

from lumbar_tf.files import file_sha256, open_regular_file, replace_atomically
from lumbar_tf.models.bundle_folder import MANIFEST
from lumbar_tf.records.manifest import package_versions

_LOG = logging.getLogger("lumbar_tf")
#: Environment variable with a folder to use in place of the user's cache folder.
CACHE_VARIABLE = "LUMBAR_TF_CACHE"
_FOLDER = "self_tests"
#: Packages that influence the outputs of a graph, in addition to those that make its inputs.
_PACKAGES = ("tensorflow", "keras")
#: Prefixes of environment variables that choose TensorFlow's kernels and compiler.
_VARIABLES = ("TF_", "XLA_", "CUDA_VISIBLE_DEVICES")
#: Of the variables of TensorFlow, those of its log, which differ between commands.
_LOG_VARIABLES = ("TF_CPP_MIN_LOG_LEVEL", "TF_CPP_MAX_VLOG_LEVEL", "TF_CPP_VMODULE")
#: A record has about 5 kB, most of them the processor's features.
_MAX_BYTES = 1 << 16

#: What a self-test's outcome depends on.
TestConditions = Mapping[str, str]


def describe_conditions(bundle: Path, *, with_saliency: bool) -> TestConditions:
    """Returns what the outcome of a bundle's self-test depends on.

    Args:
        bundle: the version's folder, whose files have the digests of its manifest; see `file_check`.
        with_saliency: whether the signature with saliency is tested.
    """
    # Any change of any of its files changes the manifest.
    return {
        "manifest_sha256": file_sha256(bundle / MANIFEST),
        "with_saliency": str(with_saliency),
        **package_versions(*_PACKAGES),
        "self_test_sha256": file_sha256(Path(__file__).with_name("self_test.py")),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": _describe_processor(),
        "devices": _describe_devices(),
        "environment": _describe_environment(),
    }


def has_passed(conditions: TestConditions) -> bool:
    """Returns whether a self-test is recorded as passed under exactly these conditions."""
    path = _record_path(conditions)
    if path is None:
        return False
    try:
        with open_regular_file(path) as file:
            if not _is_private(os.fstat(file.fileno())):
                return False
            content = file.read(_MAX_BYTES + 1)
        return len(content) <= _MAX_BYTES and json.loads(content) == dict(conditions)
    except (OSError, RecursionError, ValueError):  # absent, damaged or not JSON
        return False


def record_passed(conditions: TestConditions) -> None:
    """Records that a self-test was passed; does nothing where the cache folder cannot be written."""
    path = _record_path(conditions)
    if path is None:
        return
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replace_atomically(path) as temporary:
            temporary.write_text(json.dumps(conditions, indent=1), encoding="utf-8")
            temporary.chmod(0o600)
    except OSError as error:
        _LOG.debug("the self-test could not be recorded: %s", error)


def discard_record(conditions: TestConditions) -> None:
    """Removes the record of a self-test, which is about to run again."""
    path = _record_path(conditions)
    try:
        if path is not None:
            path.unlink(missing_ok=True)
    except OSError as error:
        _LOG.debug("the record of a self-test could not be removed: %s", error)


def cache_folder() -> Path | None:
    """Returns the package's folder in the user's cache, which may be absent; None for a user without a home.

    It is `$LUMBAR_TF_CACHE`, or `lumbar_tf` in `$XDG_CACHE_HOME` or `~/.cache`. Relative paths are ignored,
    as the XDG Base Directory Specification requires.
    """
    own = Path(os.environ.get(CACHE_VARIABLE, ""))
    if own.is_absolute():
        return own
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (shared if shared.is_absolute() else Path.home() / ".cache") / "lumbar_tf"
    except RuntimeError:
        return None


def _record_path(conditions: TestConditions) -> Path | None:
    folder = cache_folder()
    if folder is None:
        return None
    text = json.dumps(conditions, sort_keys=True)
    return folder / _FOLDER / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


def _is_private(status: os.stat_result) -> bool:
    """Returns whether only this user can have written a file."""
    is_own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return is_own and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _describe_processor() -> str:
    """Returns the processor's model and features, which choose the kernels; where Linux lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU part")
    first: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in wanted:
            first.setdefault(name.strip(), value.strip())
    return "; ".join(f"{name} {value}" for name, value in first.items()) or platform.processor()


def _describe_devices() -> str:
    """Returns TensorFlow's devices: on a GPU, outputs differ from those on the processor."""
    import tensorflow as tf

    return ", ".join(device.name for device in tf.config.list_physical_devices())


def _describe_environment() -> str:
    chosen = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_VARIABLES) and name not in _LOG_VARIABLES
    }
    return json.dumps(chosen, sort_keys=True)
