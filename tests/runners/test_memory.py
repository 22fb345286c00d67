import subprocess
import sys

SCRIPT = """
import ctypes
import resource
import sys
import numpy as np
from lumbar_tf.runners.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
# PR_SET_THP_DISABLE: how many huge pages there are to be had depends on the rest of the machine.
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
for size in (9, 5, 7, 11, 6) * 20:
    np.ones(size << 20, np.uint8)
print(faults() - before)
"""


def _count_faults(word: str) -> int:
    command = [sys.executable, "-c", SCRIPT, word]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_freed_memory_is_reused() -> None:
    assert _count_faults("kept") * 2 < _count_faults("returned")
