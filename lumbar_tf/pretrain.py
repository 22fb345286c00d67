"""`python -m lumbar_tf.pretrain`: makes the pretrained ensemble of the package from synthetic studies."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from pydantic import Field, PositiveInt

import lumbar_tf
from lumbar_tf.api.pretrained import install_pretrained
from lumbar_tf.cli.command import CommandOptions, run_command
from lumbar_tf.cli.console import Summary
from lumbar_tf.config import PRETRAINED_CONFIG_PATH, dump_config, load_demo_config
from lumbar_tf.demo import (
    DemoOptions,
    Stopwatch,
    export_and_predict,
    is_begun,
    make_cohorts,
    open_folder,
    stack_members,
    summarise,
    train_members,
)

#: Scores of the held-out studies.
_METRICS = Path("evaluation") / "metrics.json"


class PretrainOptions(CommandOptions):
    """Trains an ensemble on synthetic studies and installs it as the pretrained ensemble of this package.

    It takes the stages of the demo, with more studies and epochs, and continues where an earlier call with
    the same configuration was interrupted. All figures are of synthetic studies and say nothing about
    patients.
    """

    config: Path = Field(
        PRETRAINED_CONFIG_PATH,
        description="YAML file of cohort, planes and seeds, with the fields of configs/demo.yaml.",
    )
    set: tuple[str, ...] = Field(
        (),
        description="Overrides, such as --set cohort.num_training=60.",
    )
    out: Path = Field(
        Path("pretraining"),
        description="Folder for cohort, records, runs, scores and bundles.",
    )
    install: Path | None = Field(
        None,
        description="Folder that is replaced by the ensemble. By default the package's own, or that of the "
        "environment variable LUMBAR_TF_PRETRAINED.",
    )
    model_version: PositiveInt = Field(
        1,
        description="Version number of the bundle.",
    )
    workers: PositiveInt = Field(
        2,
        description="Number of processes.",
    )

    after_interrupt: ClassVar[str] = "Run the same command again: each stage skips what is done."


def run_pretrain(options: PretrainOptions) -> Summary:
    """Runs the stages that are not done, and installs the ensemble."""
    config = load_demo_config(options.config, overrides=options.set)
    demo = DemoOptions(
        config=options.config,
        set=options.set,
        out=options.out,
        resume=is_begun(options.out),
        workers=options.workers,
    )
    open_folder(demo, dump_config(config))
    watch = Stopwatch()
    release = options.out / "release" / str(options.model_version)
    summary = Summary("", {}, {})
    if not (options.out / _METRICS).is_file():
        make_cohorts(config, demo, watch)
        train_members(config, demo, watch)
        stack_members(demo, watch)
        export_and_predict(demo, watch)
        summary = summarise(demo, watch)
    if not release.is_dir():  # a version appears whole
        with watch.stage("export with held-out scores"):
            export_release(options, release)
    with watch.stage("installation"):
        installed = install_pretrained(release, options.install)
    return replace(
        summary,
        title="Pretrained ensemble: every figure is of SYNTHETIC studies and says nothing about patients",
        figures={**summary.figures, "size of the folder, MB": installed.size_bytes / 1e6},
        paths={**summary.paths, "bundle": installed.bundle},
    )


def export_release(options: PretrainOptions, release: Path) -> None:
    """Exports the ensemble again, with the first export's scores in its model card."""
    lumbar_tf.export(
        options.out / "runs",
        release.parent,
        version=options.model_version,
        labels=options.out / "training" / "train.csv",
        metrics=options.out / _METRICS,
        data="Synthetic studies of `lumbar_tf.pretrain`.",
        synthetic=True,
        compact=True,
        saliency=False,
        records=options.out / "tfrecords",
        verbose=True,
    )


if __name__ == "__main__":
    run_command(PretrainOptions, run_pretrain)
