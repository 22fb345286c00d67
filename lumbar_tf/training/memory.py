"""How a process that reads records gets its memory."""

import ctypes
import sys

#: Parameters of mallopt(3), from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: The largest that glibc documents for 64 bits; a slice of 1,024 x 1,024 has 2 MB.
_MMAP_THRESHOLD_BYTES = 32 << 20
#: A dozen records.
_TRIM_THRESHOLD_BYTES = 256 << 20


def keep_freed_memory() -> None:
    """Has glibc keep freed memory for the next record, 256 MB of it, instead of handing it back at once.

    Every record and every slice in it is megabytes that are taken and freed again: fetched from the system
    page by page each time, that costs more than parsing them. Other systems are left as they are.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)
