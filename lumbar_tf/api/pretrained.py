"""Installation of an ensemble as the pretrained one of the package."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from lumbar_tf.api.arguments import PathLike
from lumbar_tf.models.pretrained import MAX_BYTES, pretrained_folder


@dataclass(frozen=True)
class InstalledEnsemble:
    """Files of a pretrained ensemble.

    Attributes:
        bundle: folder of the version.
        size_bytes: size of all files.
    """

    bundle: Path
    size_bytes: int


def install_pretrained(bundle: PathLike, folder: PathLike | None = None) -> InstalledEnsemble:
    """Copies a bundle to the place of the pretrained ensemble.

    An ensemble that is there already is replaced once the new one is complete.

    Args:
        bundle: the version's folder.
        folder: the place; by default the package's own, see `models.pretrained`, whose size is limited.

    Raises:
        ValueError: the bundle's files are not those that were exported, or all files together are larger than
            a package should carry.
    """
    from lumbar_tf.bundle.file_check import find_file_faults
    from lumbar_tf.bundle.loading import raise_faults
    from lumbar_tf.models.bundle_folder import find_version

    target = pretrained_folder() if folder is None else Path(folder)
    version = find_version(Path(bundle))
    partial, before = (target.with_name(f".{target.name}-{name}") for name in ("partial", "before"))
    shutil.rmtree(partial, ignore_errors=True)
    try:
        copied = partial / version.name
        shutil.copytree(version, copied)
        raise_faults(copied, find_file_faults(copied))
        size = sum(file.stat().st_size for file in partial.rglob("*") if file.is_file())
        if folder is None and size > MAX_BYTES:
            raise ValueError(
                f"A pretrained ensemble must have at most {MAX_BYTES / 1e6:.0f} MB. "
                f"Received: {size / 1e6:.1f} MB, of {version}."
            )
        shutil.rmtree(before, ignore_errors=True)
        if target.exists():
            target.rename(before)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(before, ignore_errors=True)
    return InstalledEnsemble(target / version.name, size)
