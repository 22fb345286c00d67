"""Faulty files, each made from a valid one, with the expected reason code.

The `make` function of a fault takes a valid file as written by `made_files.make_file`: one frame, Explicit VR
Little Endian, not compressed. It keeps the identity, so that the faulty file can be placed among the valid
ones of a series.
"""

from tests.dicom.file_damage import FileFault
from tests.dicom.header_faults import HEADER_FAULTS
from tests.dicom.pixel_faults import PIXEL_FAULTS

FILE_FAULTS: tuple[FileFault, ...] = (*HEADER_FAULTS, *PIXEL_FAULTS)
