"""How a network is fitted."""

from typing import Annotated, Literal

from pydantic import Field

from lumbar_tf.config.augmentation import AugmentationConfig
from lumbar_tf.config.fields import Config, Count, Fraction, Positive


class EarlyStoppingConfig(Config):
    """When training ends before its last epoch, and which epoch's weights are used then.

    What decides is a part of the TRAINING studies, by patient, that is kept out of training for it. The
    held-out fold is scored afterwards: to choose an epoch by it would make that score too good.

    Attributes:
        patience: epochs without a better value that end the training.
        metric: `loss`, or `weighted_log_loss` for graders: the competition's weighted log loss of all
            watched studies together.
        share: of the training patients that are kept out.
    """

    patience: Count
    metric: Literal["loss", "weighted_log_loss"] = "loss"
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.15


class TrainingConfig(Config):
    """How a network is fitted.

    Attributes:
        epochs: passes over the training folds.
        batch_studies: whole studies a batch.
        learning_rate: peak of the warm-up and cosine schedule (AdamW).
        warmup_fraction: share of the steps that warm up.
        weight_decay: decoupled weight decay.
        clip_norm: global gradient norm.
        ema_momentum: exponential moving average of the weights; 0 switches it off.
        weights: where each backbone starts: `none`, `imagenet` (an explicit download) or the path of
            a `.weights.h5` file. A backbone that is not named starts from nothing.
        freeze_batch_norm: keep batch normalisation as it came with given weights (it learns where
            there are none).
        augmentation: random changes.
        batch_norm_momentum: of the running statistics; short trainings need a short memory.
        validate_every: epochs between looks at the held-out fold; 0 looks only after training.
        cache: keep decoded slices in memory between epochs.
        early_stopping: None trains all epochs and uses the last one's weights.
        jit_compile: compile the step with XLA, on one device; the first step waits for it, and dropout draws
            other numbers.
        board_pictures: show the crops of the first batch, and the confusions at each validation, in
            TensorBoard.
    """

    epochs: Count
    batch_studies: Count
    learning_rate: Positive
    warmup_fraction: Fraction = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: Positive = 1.0
    ema_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weights: dict[str, str] = Field(default_factory=dict)
    freeze_batch_norm: bool = False
    batch_norm_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    validate_every: Annotated[int, Field(ge=0)] = 1
    augmentation: AugmentationConfig = AugmentationConfig()
    cache: bool = False
    early_stopping: EarlyStoppingConfig | None = None
    jit_compile: bool = False
    board_pictures: bool = True

    def weights_of(self, backbone: str) -> str:
        """Returns where a backbone starts: `none`, `imagenet` or a file."""
        return self.weights.get(backbone, "none")
