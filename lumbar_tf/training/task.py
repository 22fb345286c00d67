"""What the fold loop has to know of a network: how it is built, what it reads and what it leaves behind."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from lumbar_tf.config import TrainingConfig
from lumbar_tf.inputs.record_source import RecordSource
from lumbar_tf.training.runs import PlaneRun
from lumbar_tf.training.validation import Judge


class MakeTrain(Protocol):
    """Makes endless batches of (inputs, targets) of some studies."""

    def __call__(self, source: RecordSource, *, fold: int, seed: int, start_epoch: int) -> tf.data.Dataset:
        """See `make_grader_train_dataset`; `fold` is held out."""


class MakeEvaluation(Protocol):
    """Makes batches of (inputs, targets, study_id) of some studies, once each."""

    def __call__(self, source: RecordSource, *, fold: int) -> tf.data.Dataset:
        """See `make_grader_eval_dataset`; `fold` is held out, whether or not the studies are of it."""


@dataclass(frozen=True)
class PretrainingStep:
    """What a network learns before what it is wanted for: features, which its second step keeps.

    Attributes:
        build: makes the network with fresh weights, all of them free.
        training: how it is fitted.
        loss: without class weights.
    """

    build: Callable[[], keras.Model]
    training: TrainingConfig
    loss: keras.losses.Loss


@dataclass(frozen=True)
class TrainingTask:
    """A localizer or a grader of one plane.

    Attributes:
        build: makes the network with fresh weights.
        training: how it is fitted.
        loss: None where the network computes its own.
        make_train: training batches.
        make_evaluation: batches of (inputs, targets, study_id) in an order of the files alone.
        judge: what is said of it during training.
        check: raises ValueError where it cannot learn from studies.
        write_table: writes a held-out fold's answers, from the network, the fold's evaluation batches and
            its number.
        first_step: what comes before, None for nothing.
    """

    build: Callable[[], keras.Model]
    training: TrainingConfig
    loss: keras.losses.Loss | None
    make_train: MakeTrain
    make_evaluation: MakeEvaluation
    judge: Judge
    check: Callable[[RecordSource], None]
    write_table: Callable[[keras.Model, tf.data.Dataset, int], None]
    first_step: PretrainingStep | None = None


@dataclass(frozen=True)
class FoldStudies:
    """The studies of one fold.

    Attributes:
        train: what it learns from.
        watched: training studies kept out of `train` for early stopping; none without it.
        held_out: what it answers in the end, and never learns from or stops by.
    """

    train: RecordSource
    watched: RecordSource
    held_out: RecordSource


def split_fold(run: PlaneRun, fold: int, training: TrainingConfig, *, seed: int) -> FoldStudies:
    """Deals the plane's studies to their parts in a fold.

    Raises:
        ValueError: nothing is left to train on.
    """
    learning = run.studies(held_out=fold, is_training=True)
    watched: tuple[str, ...] = ()
    if training.early_stopping is not None:
        watched = early_stopping_studies(run, learning, share=training.early_stopping.share, seed=seed)
    train = tuple(study for study in learning if study not in set(watched))
    if not train:
        raise ValueError(f"Fold {fold} leaves no study of {run.config.plane.value} to train on.")
    held_out = run.studies(held_out=fold, is_training=False)
    return FoldStudies(*(RecordSource(run.shards, each) for each in (train, watched, held_out)))


def early_stopping_studies(
    run: PlaneRun, studies: tuple[str, ...], *, share: float, seed: int
) -> tuple[str, ...]:
    """Chooses the patients that early stopping watches: all their studies, and at least one patient.

    Args:
        run: says which studies are of one patient.
        studies: training studies.
        share: of their patients.
        seed: of the choice.

    Raises:
        ValueError: there are fewer than two patients.
    """
    group_of = {each.study_id: each.patient_group for each in run.manifest.studies}
    groups = sorted({group_of[study] for study in studies})
    if len(groups) < 2:
        raise ValueError(f"early_stopping needs two training patients at least. Received: {len(groups)}.")
    count = max(round(len(groups) * share), 1)
    chosen = set(np.random.default_rng(seed).choice(groups, count, replace=False).tolist())
    return tuple(study for study in studies if group_of[study] in chosen)
