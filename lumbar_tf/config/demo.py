"""Configuration of the demo."""

from typing import Annotated, Literal

from pydantic import Field

from lumbar_tf.config.fields import Config, Count
from lumbar_tf.config.plane import PlaneConfig
from lumbar_tf.config.variety import VarietyConfig


class CohortConfig(Config):
    """The synthetic cohort of the demo.

    Attributes:
        num_training: studies that train.
        num_held_out: studies that no stage of training sees.
        seed: of the cohort.
        severity_shift: raises the share of moderate and severe findings above the competition's.
        resolution: matrix sizes, `small` or `full`.
        variety: distributions of varied patients and scans; None for plain ones.
    """

    num_training: Count
    num_held_out: Count
    seed: int = 0
    severity_shift: float = 0.0
    resolution: Literal["small", "full"] = "small"
    variety: VarietyConfig | None = None


class DemoConfig(Config):
    """Configuration of the demo."""

    cohort: CohortConfig
    num_folds: Annotated[int, Field(ge=2, le=10)]
    planes: tuple[PlaneConfig, ...]
