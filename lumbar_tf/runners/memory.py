"""Memory of processes that read images."""

import ctypes
import sys

#: Parameters of mallopt(3), from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: Largest threshold that glibc documents for 64 bits; a slice of 1,024 x 1,024 has 2 MB.
_MMAP_THRESHOLD_BYTES = 32 << 20
#: About a dozen records.
_TRIM_THRESHOLD_BYTES = 256 << 20


def keep_freed_memory() -> None:
    """Configures glibc to keep up to 256 MB of freed memory instead of returning it to the system at once.

    DICOM files, slices and records take and free megabytes each. Fetching that memory from the system page by
    page takes longer than parsing them. On other systems nothing is changed.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)
