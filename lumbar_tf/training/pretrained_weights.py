"""Initial weights of the pretrained ensemble, read from the variables of its bundle.

A bundle has one variable for each network and fold, `parameters/<network>/<fold>`: all weights of the network
in Keras' order (`models.fold_ensemble`). Networks are numbered over the planes in the order of the
description, in each plane the localizer first.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lumbar_tf.config import PlaneConfig, parse_plane_config
from lumbar_tf.files import find_changed_files
from lumbar_tf.labels import Plane
from lumbar_tf.models.bundle_folder import MANIFEST, find_version, read_ensemble_json
from lumbar_tf.models.pretrained import describe_absence, pretrained_folder
from lumbar_tf.serving.training_data import parse_training
from lumbar_tf.training.runs import LOCALIZER

_VARIABLES = "variables/variables"


@dataclass(frozen=True)
class PretrainedPlane:
    """The networks of one plane of the pretrained ensemble.

    Attributes:
        version: folder of the bundle.
        config: configuration of the plane.
        networks: names of its networks, `LOCALIZER` and backbones, in the order of the variables.
        first_network: number of the first of them in the bundle.
        folds_sha256: digest of the folds that it was trained on.
    """

    version: Path
    config: PlaneConfig
    networks: tuple[str, ...]
    first_network: int
    folds_sha256: str

    def read_weights(self, member: str, fold: int) -> NDArray[np.float32]:
        """Returns all weights of a network, float32 [weights].

        Args:
            member: one of `networks`.
            fold: fold of the run that starts; its folds take those of the ensemble in turn.
        """
        variables = tf.train.load_checkpoint(str(self.version / _VARIABLES))
        network = f"parameters/{self.first_network + self.networks.index(member)}/"
        folds = sorted(name for name in variables.get_variable_to_shape_map() if name.startswith(network))
        weights: NDArray[np.float32] = variables.get_tensor(folds[fold % len(folds)])
        return weights

    def describe_networks(self) -> str:
        """Returns its backbones as text for a message."""
        graders = ", ".join(name for name in self.networks if name != LOCALIZER)
        localizer = f"; localizer: {self.config.localizer.backbone}" if self.config.localizer else ""
        return f"graders: {graders or 'none'}{localizer}"


def read_pretrained_plane(plane: Plane) -> PretrainedPlane:
    """Reads the pretrained ensemble's description of a plane, and verifies its variables.

    Raises:
        ValueError: there is no pretrained ensemble, it lacks the plane, was trained on other than synthetic
            studies (their ids are not in a bundle, so that held-out studies cannot be excluded), or its
            variables are not those that were exported.
    """
    try:
        version = find_version(pretrained_folder())
    except ValueError as error:
        raise ValueError(f"init_from=pretrained needs weights. {describe_absence()}") from error
    description = read_ensemble_json(version)
    if not parse_training(description).is_synthetic:
        raise ValueError(
            "init_from=pretrained must be an ensemble that was trained on synthetic studies, because a "
            f"bundle does not list its studies. Received: {version}. Pass the folder of its runs instead."
        )
    _verify_variables(version, description)
    planes: dict[str, Any] = description["planes"]
    if plane.value not in planes:
        raise ValueError(
            f"The pretrained ensemble must have the plane {plane.value}. Received: {', '.join(planes)}."
        )
    names = {name: _network_names(content) for name, content in planes.items()}
    before = list(planes)[: list(planes).index(plane.value)]
    content = planes[plane.value]
    return PretrainedPlane(
        version=version,
        config=parse_plane_config(content["config"], version / MANIFEST),
        networks=names[plane.value],
        first_network=sum(len(names[name]) for name in before),
        folds_sha256=content["digests"]["folds_sha256"],
    )


def _network_names(content: dict[str, Any]) -> tuple[str, ...]:
    return (*([LOCALIZER] if content["has_localizer"] else []), *content["graders"])


def _verify_variables(version: Path, description: dict[str, Any]) -> None:
    digests = {name: digest for name, digest in description["files"].items() if name.startswith(_VARIABLES)}
    changed = find_changed_files(version, digests)
    if changed:
        raise ValueError(
            f"Pretrained weights must be the files that were exported. Received: {version} with another "
            f"{changed[0]}."
        )
