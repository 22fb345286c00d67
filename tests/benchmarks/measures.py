"""What `training.py` measures: steps of `fit`, the train dataset alone, FLOPs."""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from lumbar_tf.config import PlaneConfig, default_config_path, load_plane_config
from lumbar_tf.inputs.crop_layout import CropLayout
from lumbar_tf.inputs.grader_dataset import make_grader_train_dataset
from lumbar_tf.inputs.record_source import RecordSource, read_points
from lumbar_tf.labels import Plane
from lumbar_tf.models.grader import build_grader
from lumbar_tf.models.losses import WeightedSeverityLoss
from lumbar_tf.records.manifest import read_manifest
from lumbar_tf.runners.memory import keep_freed_memory
from lumbar_tf.tables.folds import FOLDS_NAME, read_folds
from lumbar_tf.training.fitter import Fitter

#: Steps at the start of a fit that wait for the shuffle buffer.
_WARM_STEPS = 1
_JITTER_MM = (2.0, 2.0, 2.0)


class Spent(NamedTuple):
    """Time of something: by the clock, and of all processors, which other work hardly lengthens."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Pace:
    """How fast one member trains: medians over steps.

    Attributes:
        fed: a step fed by the train dataset.
        cached: a step fed from one batch in memory.
        batch: studies a step.
    """

    fed: Spent
    cached: Spent
    batch: int


@dataclass(frozen=True)
class Flow:
    """How fast a train dataset delivers: medians over whole epochs.

    Attributes:
        studies: a second.
        crops: a second, each slice of each crop counted.
        cpu_s: processor time of a study.
    """

    studies: float
    crops: float
    cpu_s: float


def plane_config(plane: Plane, batch: int | None, changes: Sequence[str] = ()) -> PlaneConfig:
    """The plane's own configuration, at another batch size or with other changes if asked for."""
    overrides = [] if batch is None else [f"grader.training.batch_studies={batch}"]
    return load_plane_config(default_config_path(plane), overrides=[*overrides, *changes])


def training_studies(records: Path, plane: Plane, held_out: int | None) -> tuple[str, ...]:
    """The studies of all folds but the held-out one; None holds none out."""
    manifest = read_manifest(records)
    folds = read_folds(records / FOLDS_NAME, manifest.patient_groups)
    studies = (name for shard in manifest.planes[plane.value] for name in shard.study_ids)
    return tuple(name for name in studies if folds[name] != held_out)


def train_dataset(records: Path, config: PlaneConfig, held_out: int | None = None) -> tf.data.Dataset:
    """The grader's train dataset at annotated points."""
    source = RecordSource(
        tuple(read_manifest(records).shard_paths(records, config.plane)),
        training_studies(records, config.plane, held_out),
    )
    return make_grader_train_dataset(
        source,
        read_points(source),
        layout=CropLayout.of(config),
        crop=config.grader.crop,
        training=config.grader.training,
        jitter_mm=_JITTER_MM,
        seed=1,
    )


def compiled_grader(config: PlaneConfig, backbone: str) -> keras.Model:
    """The network with the step that training compiles."""
    layout = CropLayout.of(config)
    fitter = Fitter(
        lambda: build_grader(backbone, config.grader, layout),
        training=config.grader.training,
        loss=WeightedSeverityLoss(layout.rows),
        strategy=tf.distribute.get_strategy(),
    )
    return fitter.model


def _now() -> Spent:
    return Spent(time.perf_counter(), time.process_time())


def _medians(times: list[Spent]) -> Spent:
    return Spent(*(statistics.median(each) for each in zip(*times, strict=True)))


def _between(before: Spent, after: Spent) -> Spent:
    return Spent(after.wall_s - before.wall_s, after.cpu_s - before.cpu_s)


def step_times(model: keras.Model, dataset: tf.data.Dataset, steps: int) -> list[Spent]:
    """Time from step to step of one `fit`, the first ones left out."""
    ends: list[Spent] = []

    class _Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            ends.append(_now())

    model.fit(dataset, steps_per_epoch=steps + _WARM_STEPS, shuffle=False, verbose=0, callbacks=[_Clock()])
    return [_between(*each) for each in pairwise(ends[_WARM_STEPS - 1 :])]


def measure_pace(model: keras.Model, records: Path, config: PlaneConfig, *, rounds: int, steps: int) -> Pace:
    """Times `fit` on the dataset and on one of its batches, in turn; the first round does not count."""
    dataset = train_dataset(records, config)
    cached = dataset.take(1).cache().repeat()
    fed: list[Spent] = []
    kept: list[Spent] = []
    for place in range(rounds + 1):
        for target, source in ((fed, dataset), (kept, cached)):
            # Tracing and filling caches is what the first round is for.
            times = step_times(model, source, steps if place else 1)
            target.extend(times if place else [])
    return Pace(_medians(fed), _medians(kept), config.grader.training.batch_studies)


def forward_flops(model: keras.Model) -> float:
    """FLOPs of one study's forward pass, as TensorFlow's profiler counts its graph."""
    spec = {name: tf.TensorSpec((1, *each.shape[1:]), each.dtype) for name, each in model.input.items()}
    graph = tf.function(lambda inputs: model(inputs, training=False)).get_concrete_function(spec).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder(
        tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    ).with_empty_output()
    return float(tf.compat.v1.profiler.profile(graph, options=options.build()).total_float_ops)


def epoch_times(dataset: tf.data.Dataset, batches: int, seconds: float) -> Iterator[Spent]:
    """Time of whole epochs of a dataset that never ends, the first one left out, until time is up."""
    iterator = iter(dataset)
    for _ in range(batches):
        next(iterator)
    deadline = time.perf_counter() + seconds
    while True:
        started = _now()
        for _ in range(batches):
            next(iterator)
        yield _between(started, _now())
        if time.perf_counter() > deadline:
            return


def measure_flow(records: Path, config: PlaneConfig, seconds: float, held_out: int | None = None) -> Flow:
    """Times the train dataset alone."""
    keep_freed_memory()  # as training does
    training = config.grader.training
    batches = len(training_studies(records, config.plane, held_out)) // training.batch_studies
    dataset = train_dataset(records, config, held_out)
    epoch = _medians(list(epoch_times(dataset, batches, seconds)))
    studies = batches * training.batch_studies
    crops = len(CropLayout.of(config).sides) * config.grader.crop.num_slices
    return Flow(studies / epoch.wall_s, studies / epoch.wall_s * crops, epoch.cpu_s / studies)
