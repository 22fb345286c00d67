"""Does the input pipeline starve training, how fast is it alone, and what would full size cost?

    python -m lumbar_tf.synthetic --out=/somewhere/cohort --studies=60 --seed=77 --resolution=full
    python -m lumbar_tf.build_records --data=/somewhere/cohort --out=/somewhere/records
    python tests/benchmarks/training.py /somewhere/records [--rounds=3] [--steps=6] [--batch=2]

Prints, in one run:
(b) studies and crops a second of each plane's train dataset alone, over whole epochs, at the batch size of
    the configuration;
(a) for each plane and backbone `fit`'s step fed by the train dataset against the same compiled step fed from
    one cached batch in memory, in rounds that alternate, medians over steps; by the clock, and by processor
    time, which other work on the machine hardly changes and to which reading and decoding belong even where
    the shuffle buffer holds the whole cohort;
(c) FLOPs a study, and what the grid of configs/*.yaml takes on the full RSNA data, here and elsewhere.

    python tests/benchmarks/training.py /somewhere/records --do=loaders --torch=/venv/bin/python

writes .npy stacks and sets the train dataset beside a PyTorch DataLoader (torch_loader.py, in an environment
of its own with torch, opencv-python-headless and albumentations): whole processes in turn, medians.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from full_size import RSNA_STUDIES, Device, Member, format_plan
from measures import (
    Flow,
    Pace,
    compiled_grader,
    forward_flops,
    measure_flow,
    measure_pace,
    plane_config,
    training_studies,
)
from stacks import write_stacks

from lumbar_tf.config import TrainingConfig
from lumbar_tf.labels import Plane
from lumbar_tf.models.localizer import build_localizer
from lumbar_tf.records.manifest import read_manifest


def _members(
    paces: dict[str, Pace], flows: dict[Plane, Flow], flops: dict[str, float], *, by_processor: bool
) -> list[Member]:
    """The grid of the configurations; a localizer's rate of `fit` is scaled from its plane's first grader."""
    members = []
    for plane, flow in flows.items():
        config = plane_config(plane, None)
        names = [f"{plane.value}/{each}" for each in config.grader.backbones]
        fits = {name: _fit_rate(paces[name], flow, by_processor=by_processor) for name in names}
        delivered = _cores() / flow.cpu_s if by_processor else flow.studies

        def member(name: str, training: TrainingConfig, count: float, fit: float, rate: float) -> Member:
            return Member(name, count, training.epochs, training.validate_every, fit, rate)

        if config.localizer is not None:
            count = forward_flops(build_localizer(config.localizer, plane))
            fit = fits[names[0]] * flops[names[0]] / count
            name = f"{plane.value}/localizer"
            members.append(member(name, config.localizer.training, count, fit, delivered))
        members += [
            member(name, config.grader.training, flops[name], fits[name], delivered) for name in names
        ]
    return members


def _cores() -> float:
    return float(os.cpu_count() or 1)


def _fit_rate(pace: Pace, flow: Flow, *, by_processor: bool) -> float:
    """Studies a second: as measured, or what all cores could do if nothing else ran on them."""
    if not by_processor:
        return pace.batch / pace.fed.wall_s
    return _cores() / (pace.cached.cpu_s / pace.batch + flow.cpu_s)


def run(words: argparse.Namespace) -> None:
    """Prints (a), (b) and (c)."""
    print(f"{_machine()}; batch {words.batch}, {words.rounds} rounds of {words.steps} steps", flush=True)
    planes = [Plane(words.plane)] if words.plane else list(Plane)
    flows = {}
    for plane in planes:
        flows[plane] = flow = measure_flow(words.records, plane_config(plane, None), words.seconds)
        print(
            f"(b) {plane.value}: the train dataset alone {flow.studies:.1f} studies/s, "
            f"{flow.crops:.0f} crops/s, {flow.cpu_s * 1e3:.1f} ms of processors a study; "
            f"load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    paces: dict[str, Pace] = {}
    flops: dict[str, float] = {}
    for plane in planes:
        config = plane_config(plane, words.batch)
        for backbone in config.grader.backbones:
            name = f"{plane.value}/{backbone}"
            model = compiled_grader(config, backbone)
            flops[name] = forward_flops(model)
            paces[name] = measure_pace(model, words.records, config, rounds=words.rounds, steps=words.steps)
            _print_pace(name, paces[name], flows[plane])
    print("(c)")
    print(
        format_plan(
            _members(paces, flows, flops, by_processor=words.by_processor),
            _devices(words),
            studies=words.studies,
            folds=words.folds,
            measured_cores=_cores(),
            store_bytes_per_study=_store_sizes(words.records),
        )
    )


def _print_pace(name: str, pace: Pace, flow: Flow) -> None:
    """(a), and how many times what the network consumes from memory the pipeline alone delivers."""
    step_cpu_s = pace.cached.cpu_s / pace.batch
    print(
        f"(a) {name}: step {pace.fed.wall_s * 1e3:.0f} ms fed / {pace.cached.wall_s * 1e3:.0f} ms cached = "
        f"{pace.fed.wall_s / pace.cached.wall_s:.3f} by the clock; by processors 1 + "
        f"{flow.cpu_s * 1e3:.1f} / {step_cpu_s * 1e3:.0f} ms a study = {1 + flow.cpu_s / step_cpu_s:.3f}; "
        f"the pipeline alone is {flow.studies * pace.cached.wall_s / pace.batch:.1f} times as fast "
        f"(processors: {step_cpu_s / flow.cpu_s:.1f}); load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def _devices(words: argparse.Namespace) -> list[Device]:
    gpu, tpu = words.h100_peak * 1e12, words.v5e_peak * 1e12
    return [
        Device("1 H100", gpu, words.utilisation, words.h100_cores, words.h100_price),
        Device("8 H100", 8 * gpu, words.utilisation, 8 * words.h100_cores, 8 * words.h100_price),
        Device("TPU v5e-8", 8 * tpu, words.utilisation, words.v5e_cores, 8 * words.v5e_price),
    ]


def _store_sizes(records: Path) -> dict[str, float]:
    """Bytes a record by plane."""
    return {
        plane: sum(each.size_bytes for each in shards) / sum(each.num_examples for each in shards)
        for plane, shards in read_manifest(records).planes.items()
    }


def _machine() -> str:
    return f"{os.cpu_count()} x {platform.processor() or platform.machine()}, load {os.getloadavg()[0]:.1f}"


def _peak_kb() -> int:
    """Peak memory of this process; `ru_maxrss` would count what started it, too."""
    (line,) = (
        each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM")
    )
    return int(line.split()[1])


def run_pipeline(words: argparse.Namespace) -> None:
    """One plane's train dataset alone, for `loaders`: prints JSON."""
    before = _peak_kb()
    config = plane_config(Plane(words.plane), None, words.set)
    flow = measure_flow(words.records, config, words.seconds, words.held_out)
    peak = _peak_kb()
    print(json.dumps({**vars(flow), "peak_mb": peak / 1024, "import_mb": before / 1024}))


def run_loaders(words: argparse.Namespace) -> None:
    """The train dataset beside a PyTorch DataLoader, in turn."""
    part = "all studies" if words.held_out is None else f"all but those of fold {words.held_out}"
    print(f"{_machine()}; {words.rounds} rounds; {part}")
    torch_script = str(Path(__file__).with_name("torch_loader.py"))
    for plane in Plane:
        config = plane_config(plane, None, words.set)
        with tempfile.TemporaryDirectory(dir=words.scratch) as folder:
            studies = training_studies(words.records, plane, words.held_out)
            write_stacks(words.records, config, Path(folder), studies)
            common = [f"--seconds={words.seconds}"]
            ours = [
                sys.executable,
                __file__,
                str(words.records),
                "--do=pipeline",
                f"--plane={plane.value}",
                *([] if words.held_out is None else [f"--held-out={words.held_out}"]),
                *(f"--set={change}" for change in words.set),
                *common,
            ]
            theirs = [
                words.torch,
                torch_script,
                folder,
                f"--batch={config.grader.training.batch_studies}",
                *common,
            ]
            commands = {"lumbar_tf": ours, "torch": theirs, "torch, memory-mapped": [*theirs, "--mmap"]}
            found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
            for _ in range(words.rounds):
                for name, command in commands.items():
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    found[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
        for name, each in found.items():
            middle = {key: statistics.median(one[key] for one in each) for key in each[0]}
            print(
                f"  {plane.value}, {name}: {middle['studies']:.1f} studies/s, {middle['crops']:.0f} crops/s, "
                f"{middle['cpu_s'] * 1e3:.1f} ms of processors a study, peak {middle['peak_mb']:.0f} MB "
                f"(imports {middle['import_mb']:.0f}); load {os.getloadavg()[0]:.1f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("records", type=Path)
    parser.add_argument("--do", choices=("all", "pipeline", "loaders"), default="all")
    parser.add_argument("--plane", choices=[each.value for each in Plane])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=2, help="studies a step in (a), to keep it short")
    parser.add_argument("--seconds", type=float, default=8.0, help="of the pipeline alone, a plane")
    parser.add_argument("--held-out", type=int, help="loaders: a fold to leave out, as training does")
    parser.add_argument("--set", action="append", default=[], help="loaders: key=value of the configuration")
    parser.add_argument("--torch", help="the Python of an environment with torch")
    parser.add_argument("--scratch", type=Path, help="where stacks are written; the system's own by default")
    parser.add_argument(
        "--by-processor", action="store_true", help="(c) from processor time: on a busy machine"
    )
    parser.add_argument("--studies", type=int, default=RSNA_STUDIES)
    parser.add_argument("--folds", type=int, default=5)
    # Dense bfloat16 peaks of the makers' data sheets: H100 SXM 989 TFLOP/s, TPU v5e 197 TFLOP/s a chip.
    parser.add_argument("--h100-peak", type=float, default=989.0, help="TFLOP/s")
    parser.add_argument("--v5e-peak", type=float, default=197.0, help="TFLOP/s a chip")
    # Not measured: small crops and depthwise convolutions keep matrix units idle for most of the time.
    parser.add_argument("--utilisation", type=float, default=0.05, help="share of the peak, an assumption")
    # Cores and prices of machines that clouds rent out; assumptions, and prices change.
    parser.add_argument("--h100-cores", type=float, default=26.0, help="host cores a GPU")
    parser.add_argument("--v5e-cores", type=float, default=224.0, help="host cores of the eight chips")
    parser.add_argument("--h100-price", type=float, default=3.0, help="dollars an hour and GPU")
    parser.add_argument("--v5e-price", type=float, default=1.2, help="dollars an hour and chip")
    words = parser.parse_args()
    {"all": run, "pipeline": run_pipeline, "loaders": run_loaders}[words.do](words)


if __name__ == "__main__":
    main()
