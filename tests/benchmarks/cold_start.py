"""Time of one study in a fresh process, phase by phase, and from the command to its report.

    python tests/benchmarks/cold_start.py STUDY [--bundle=BUNDLE] [--rounds=3]

STUDY is the folder of a DICOM study; BUNDLE is by default the pretrained ensemble. Each round is a process of
its own. Medians of seconds, by the clock and of the processor (user and system, all threads): the former
depend on what else the machine does. `tf.saved_model.load` is timed beside the loading of this package, with
its first call, and the largest difference of any output between the two is printed.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(_REPOSITORY))

Times = dict[str, tuple[float, float]]


@contextmanager
def timed(times: Times, name: str) -> Iterator[None]:
    """Adds the seconds of a block, by the clock and of the processor."""
    wall, processor = time.perf_counter(), time.process_time()
    yield
    times[name] = time.perf_counter() - wall, time.process_time() - processor


def run_phases(bundle: Path, study: Path) -> Times:
    """Returns the times of the phases of `predict` in this process, which must be a fresh one."""
    times: Times = {}
    with timed(times, "import of the package"):
        from lumbar_tf import encode_study, read_study
        from lumbar_tf.bundle.tensorflow_import import import_tensorflow
    with timed(times, "import of TensorFlow"):
        import_tensorflow()
    with timed(times, "study, read and encoded"):
        examples = encode_study(read_study(study))
    with timed(times, "checks of files and graph"):
        from lumbar_tf.bundle.file_check import find_file_faults
        from lumbar_tf.bundle.servable_check import find_faults

        faults = [*find_file_faults(bundle), *find_faults(bundle)]
    if faults:
        raise ValueError(f"{bundle} must be a bundle without faults. Received: {faults}.")
    from lumbar_tf.bundle.loading import model_inputs
    from lumbar_tf.bundle.served_graph import ServedGraph
    from lumbar_tf.serving.contract import GRADE

    inputs = model_inputs([examples])
    with timed(times, "loading"):
        graph = ServedGraph(bundle)
    for name in ("first call", "second call"):
        with timed(times, name):
            outputs = graph.run(GRADE, inputs)

    import numpy as np
    import tensorflow as tf

    with timed(times, "tf.saved_model.load instead"):
        loaded = tf.saved_model.load(str(bundle)).signatures[GRADE]
    with timed(times, "its first call"):
        expected = loaded(**{name: tf.constant(values) for name, values in inputs.items()})
    differences = [
        np.nan_to_num(np.abs(outputs[name].astype(float) - value.numpy().astype(float)))
        for name, value in expected.items()
    ]
    # No time; printed with the times.
    times["largest difference between the two"] = (max(map(np.max, differences)), 0.0)
    return times


def run_command(bundle: Path, study: Path) -> tuple[float, float]:
    """Returns the seconds of `predict` from the command to its report."""
    with tempfile.TemporaryDirectory() as out:
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "lumbar_tf.predict", f"--study={study}", f"--model={bundle}",
             f"--out={out}", "--formats=report", "--quiet"],
            cwd=_REPOSITORY,
            check=True,
        )  # fmt: skip
        after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Runs the rounds and prints the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("--bundle", type=Path, default=_REPOSITORY / "lumbar_tf" / "pretrained" / "1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--phases", action="store_true", help="one round in this process, as JSON")
    options = parser.parse_args()
    bundle, study = options.bundle.resolve(), options.study.resolve()
    if options.phases:
        print(json.dumps(run_phases(bundle, study)))
        return
    # The first run records the self-test as passed.
    run_command(bundle, study)
    rounds: list[Times] = []
    for _ in range(options.rounds):
        words = [sys.executable, __file__, str(study), f"--bundle={bundle}", "--phases"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        phases: Times = json.loads(done.stdout.splitlines()[-1])
        rounds.append({**phases, "the command": run_command(bundle, study)})
    print(f"{'seconds':38s} clock processor")
    for name in rounds[0]:
        clock, processor = (statistics.median(times[name][place] for times in rounds) for place in (0, 1))
        print(f"{name:38s} {clock:5.2f} {processor:9.2f}")


if __name__ == "__main__":
    main()
