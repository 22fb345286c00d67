"""Pretrained ensemble of the package: `pretrained/<version>/`, a bundle as `lumbar_tf.export` writes it.

It was trained on synthetic studies. `make pretrained` makes it; a checkout may lack it.
"""

import os
from pathlib import Path

#: Name of the ensemble where a bundle, a run or a file of initial weights can be named.
PRETRAINED = "pretrained"
#: Environment variable with a folder to use in place of the package's own.
FOLDER_VARIABLE = "LUMBAR_TF_PRETRAINED"
#: Limit of the folder's size, which every installation of the package carries.
MAX_BYTES = 20_000_000


def pretrained_folder() -> Path:
    """Returns the folder of the pretrained ensemble, which may be absent.

    It is `$LUMBAR_TF_PRETRAINED`, or `pretrained` in the package.
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen) if chosen else Path(__file__).parents[1] / "pretrained"


def describe_absence() -> str:
    """Returns sentences for a message: the pretrained ensemble is absent, and how to get it."""
    return (
        f"The pretrained ensemble must be in {pretrained_folder()}. Received: a checkout without it. To "
        "train it on synthetic studies, run `make pretrained`."
    )
