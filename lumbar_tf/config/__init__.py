"""Typed configuration: YAML in, frozen objects out.

An unknown or invalid field is rejected with its path. Values can be overridden on the command line
(`--set grader.training.epochs=3`), and the resolved configuration is written beside every result.
"""

from lumbar_tf.config.augmentation import AugmentationConfig
from lumbar_tf.config.demo import CohortConfig, DemoConfig
from lumbar_tf.config.loading import (
    DEMO_CONFIG_PATH,
    PRETRAINED_CONFIG_PATH,
    default_config_path,
    dump_config,
    load_demo_config,
    load_plane_config,
    load_variety_config,
    parse_plane_config,
)
from lumbar_tf.config.plane import (
    Anchor,
    CropConfig,
    GraderConfig,
    LabelNoiseConfig,
    LocalizerConfig,
    PlaneConfig,
)
from lumbar_tf.config.training import EarlyStoppingConfig, TrainingConfig
from lumbar_tf.config.variety import VarietyConfig

__all__ = [
    "DEMO_CONFIG_PATH",
    "PRETRAINED_CONFIG_PATH",
    "Anchor",
    "AugmentationConfig",
    "CohortConfig",
    "CropConfig",
    "DemoConfig",
    "EarlyStoppingConfig",
    "GraderConfig",
    "LabelNoiseConfig",
    "LocalizerConfig",
    "PlaneConfig",
    "TrainingConfig",
    "VarietyConfig",
    "default_config_path",
    "dump_config",
    "load_demo_config",
    "load_plane_config",
    "load_variety_config",
    "parse_plane_config",
]
