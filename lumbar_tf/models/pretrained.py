"""Pretrained ensemble of the package: the folder with its bundle and the weights of its networks.

pretrained/<version>/     bundle, as `lumbar_tf.export` writes it
pretrained/weights/       for `init_from: pretrained`; see `training.pretrained_weights`

It was trained on synthetic studies. `make pretrained` makes it; a checkout may lack it.
"""

import os
from pathlib import Path

#: Name of the ensemble where a run or file of initial weights can be named.
PRETRAINED = "pretrained"
#: Environment variable with a folder to use in place of the package's own.
FOLDER_VARIABLE = "LUMBAR_TF_PRETRAINED"
WEIGHTS_FOLDER = "weights"
#: Limit of the folder's size, which every installation of the package carries.
MAX_BYTES = 20_000_000


def pretrained_folder() -> Path:
    """Returns the folder of the pretrained ensemble, which may be absent.

    It is `$LUMBAR_TF_PRETRAINED`, or `pretrained` in the package.
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen) if chosen else Path(__file__).parents[1] / "pretrained"


def describe_no_weights() -> str:
    """Returns sentences for a message: the initial weights are absent, and how to get them."""
    return (
        f"They must be in {pretrained_folder() / WEIGHTS_FOLDER}. Received: no such files; the package "
        "comes without them, because of their size. Run `python -m lumbar_tf.pretrain --install=DIR` and "
        f"set {FOLDER_VARIABLE}=DIR."
    )


def describe_absence() -> str:
    """Returns sentences for a message: the pretrained ensemble is absent, and how to get it."""
    return (
        f"The pretrained ensemble must be in {pretrained_folder()}. Received: a checkout without it. To "
        "train it on synthetic studies, run `make pretrained`."
    )
