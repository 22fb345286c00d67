"""Installation of an ensemble as the pretrained one of the package."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from lumbar_tf.api.arguments import PathLike
from lumbar_tf.models.pretrained import MAX_BYTES, WEIGHTS_FOLDER, pretrained_folder


@dataclass(frozen=True)
class InstalledEnsemble:
    """Files of a pretrained ensemble.

    Attributes:
        bundle: folder of the version.
        weights: folder of the initial weights for `init_from: pretrained`; None where they were left out.
        size_bytes: size of all files.
    """

    bundle: Path
    weights: Path | None
    size_bytes: int


def install_pretrained(
    bundle: PathLike, runs: PathLike, folder: PathLike | None = None, *, has_weights: bool = True
) -> InstalledEnsemble:
    """Copies a bundle and the weights of its networks to the place of the pretrained ensemble.

    An ensemble that is there already is replaced once the new one is complete.

    Args:
        bundle: the version's folder.
        runs: folder of the runs that it was exported from.
        folder: the place; by default the package's own, see `models.pretrained`, whose size is limited.
        has_weights: whether to install the initial weights, too.

    Raises:
        ValueError: the bundle's files are not those that were exported, or all files together are larger than
            a package should carry.
    """
    from lumbar_tf.bundle.file_check import find_file_faults
    from lumbar_tf.bundle.loading import find_version, raise_faults
    from lumbar_tf.training.pretrained_weights import copy_weights

    target = pretrained_folder() if folder is None else Path(folder)
    version = find_version(Path(bundle))
    partial, before = (target.with_name(f".{target.name}-{name}") for name in ("partial", "before"))
    shutil.rmtree(partial, ignore_errors=True)
    try:
        copied = partial / version.name
        shutil.copytree(version, copied)
        raise_faults(copied, find_file_faults(copied))
        if has_weights:
            copy_weights(Path(runs), partial / WEIGHTS_FOLDER)
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
    return InstalledEnsemble(target / version.name, target / WEIGHTS_FOLDER if has_weights else None, size)
