"""Bad files, each made from a good one, with the reason code that is expected for it.

`FILE_FAULTS` is the table. A fault's `make` takes a sound file: one frame, Explicit VR Little Endian, not
compressed, as `made_files.make_file` writes it, and keeps its identity, so that a bad file can stand
among the good ones of a series.
"""

from tests.dicom.file_damage import FileFault
from tests.dicom.header_faults import HEADER_FAULTS
from tests.dicom.pixel_faults import PIXEL_FAULTS

FILE_FAULTS: tuple[FileFault, ...] = (*HEADER_FAULTS, *PIXEL_FAULTS)
