"""What the full grid costs, from what was measured on a small one: arithmetic, nothing is run here.

The grid is planes x (localizer and backbones) x folds of the configurations. A fold's epoch trains on the
other folds and looks at its own; a training step counts as three forward passes (forward, and twice that
backward).
"""

from collections.abc import Sequence
from dataclasses import dataclass

#: Studies of the competition's training data.
RSNA_STUDIES = 1975
_STEP_PER_FORWARD = 3.0
_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Member:
    """One network of the grid.

    Attributes:
        name: `sagittal_t2/mobilenet_v2`.
        forward_flops: of one study, a multiplication with its addition counted as two.
        epochs: as configured.
        validate_every: epochs between looks at the held-out fold, 0 for only one after training.
        fit_rate: studies that `fit` trained on a second on the measuring machine.
        pipeline_rate: studies that the input pipeline alone delivers a second there.
    """

    name: str
    forward_flops: float
    epochs: int
    validate_every: int
    fit_rate: float
    pipeline_rate: float

    def forward_passes(self, studies: int, folds: int) -> float:
        """Forward passes of a study that all folds together amount to."""
        trained = self.epochs * (folds - 1) * studies * _STEP_PER_FORWARD
        looks = 1 + (self.epochs // self.validate_every if self.validate_every else 0)
        return trained + looks * studies

    def studies_read(self, studies: int, folds: int) -> float:
        """Studies that the input pipeline delivers for all folds together."""
        looks = 1 + (self.epochs // self.validate_every if self.validate_every else 0)
        return self.epochs * (folds - 1) * studies + looks * studies


@dataclass(frozen=True)
class Device:
    """Where the grid could run: nothing of it was measured but on `this machine`.

    Attributes:
        name: of the machine.
        peak_flops: of all its accelerators together, a second, dense bfloat16.
        utilisation: share of the peak that these small networks reach; an assumption.
        cores: of the host, which run the input pipeline.
        dollars_per_hour: of the whole machine; an assumption.
    """

    name: str
    peak_flops: float
    utilisation: float
    cores: float
    dollars_per_hour: float


@dataclass(frozen=True)
class Estimate:
    """Hours of a grid on a device.

    Attributes:
        device: the machine.
        compute_hours: of the accelerators, from FLOPs.
        input_hours: of the input pipeline on its cores, which runs beside them.
    """

    device: Device
    compute_hours: float
    input_hours: float

    @property
    def hours(self) -> float:
        """The longer of the two: they overlap."""
        return max(self.compute_hours, self.input_hours)

    @property
    def dollars(self) -> float:
        """At the device's price."""
        return self.hours * self.device.dollars_per_hour


def hours_here(members: Sequence[Member], *, studies: int, folds: int) -> float:
    """Hours on the measuring machine, from the rates of `fit` there."""
    return (
        sum(each.forward_passes(studies, folds) / _STEP_PER_FORWARD / each.fit_rate for each in members)
        / _SECONDS_PER_HOUR
    )


def estimate(
    members: Sequence[Member], device: Device, *, studies: int, folds: int, measured_cores: float
) -> Estimate:
    """Scales FLOPs to a device, and the input pipeline to its cores.

    Args:
        members: the grid.
        device: the machine.
        studies: of the cohort.
        folds: of the grid.
        measured_cores: cores that the pipeline's rates were measured on.
    """
    flops = sum(each.forward_passes(studies, folds) * each.forward_flops for each in members)
    compute = flops / (device.peak_flops * device.utilisation) / _SECONDS_PER_HOUR
    waited = sum(each.studies_read(studies, folds) / each.pipeline_rate for each in members)
    return Estimate(device, compute, waited * measured_cores / device.cores / _SECONDS_PER_HOUR)


def format_plan(
    members: Sequence[Member],
    devices: Sequence[Device],
    *,
    studies: int,
    folds: int,
    measured_cores: float,
    store_bytes_per_study: dict[str, float],
) -> str:
    """Returns the plan as Markdown tables."""
    lines = [
        "| member | forward GFLOPs a study | fit, studies/s | pipeline, studies/s |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {each.name} | {each.forward_flops / 1e9:.2f} | {each.fit_rate:.2f} | {each.pipeline_rate:.1f} |"
        for each in members
    ]
    total = sum(each.forward_passes(studies, folds) * each.forward_flops for each in members)
    lines += [
        "",
        f"{studies} studies, {folds} folds, {len(members)} members: {total / 1e15:.1f} PFLOPs in all, "
        f"{hours_here(members, studies=studies, folds=folds):,.0f} h on the measuring machine.",
        "",
        "| machine | peak TFLOP/s | utilisation | cores | compute, h | input, h | time, h | cost, $ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for device in devices:
        each = estimate(members, device, studies=studies, folds=folds, measured_cores=measured_cores)
        lines.append(
            f"| {device.name} | {device.peak_flops / 1e12:,.0f} | {device.utilisation:.0%} | "
            f"{device.cores:.0f} | "
            f"{each.compute_hours:.2f} | {each.input_hours:.2f} | {each.hours:.2f} | {each.dollars:.0f} |"
        )
    sizes = ", ".join(f"{plane} {size / 1e6:.1f} MB" for plane, size in store_bytes_per_study.items())
    whole = sum(store_bytes_per_study.values()) * studies
    lines += ["", f"Records a study: {sizes}; the whole store {whole / 1e9:.1f} GB."]
    return "\n".join(lines)
