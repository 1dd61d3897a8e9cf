"""Whether the header of a classic netCDF file can be true, before the library allocates what it
claims.

The format is that of the NetCDF Classic Format Specification
(https://docs.unidata.ucar.edu/netcdf-c/current/file_format_specifications.html): counts, names and
values that follow one another. A damaged count makes the library ask for memory without limit.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from fedsense_core.data.raster.formats import Unreadable

HEADER_BYTES = 4 << 20
"""In which a header has to end; one of 256 variables with 40 attributes takes half a megabyte."""
_DIMENSION, _VARIABLE, _ATTRIBUTE = 10, 11, 12
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
_DIMENSIONS_OF_A_VARIABLE = 1024


def check_header(start: bytes) -> None:
    """Check a file by its first `HEADER_BYTES`; HDF5, in which netCDF 4 is kept, is left to its own
    library.

    Raises Unreadable for a classic header that claims more than is there.
    """
    if start[:3] == b"CDF" and start[3:4] in (b"\1", b"\2", b"\5"):
        _Header(start, 4, start[3]).check()
    elif not start.startswith(b"\x89HDF\r\n\x1a\n"):
        raise Unreadable("is no readable netCDF file (it begins like no netCDF file)")


@dataclass
class _Header:
    data: bytes
    at: int
    version: int

    def check(self) -> None:
        self._number(self._wide())  # records
        for _ in range(self._list(_DIMENSION)):
            self._name()
            self._number(self._wide())
        self._attributes()
        for _ in range(self._list(_VARIABLE)):
            self._name()
            dimensions = self._number(self._wide())
            if dimensions > _DIMENSIONS_OF_A_VARIABLE:
                raise self._impossible()
            self._skip(dimensions * self._wide())
            self._attributes()
            self._number(4)  # type
            self._number(self._wide())  # size
            self._number(4 if self.version == 1 else 8)  # place

    def _wide(self) -> int:
        """Return the bytes of a count."""
        return 8 if self.version == 5 else 4

    def _list(self, kind: int) -> int:
        """Return how many entries a list has."""
        found, count = self._number(4), self._number(self._wide())
        if (found != kind and (found, count) != (0, 0)) or count > len(self.data):
            raise self._impossible()
        return count

    def _attributes(self) -> None:
        for _ in range(self._list(_ATTRIBUTE)):
            self._name()
            size = _TYPE_BYTES.get(self._number(4))
            if size is None:
                raise self._impossible()
            self._skip(size * self._number(self._wide()))

    def _name(self) -> None:
        self._skip(self._number(self._wide()))

    def _number(self, size: int) -> int:
        field = self.data[self.at : self.at + size]
        if len(field) < size:
            raise self._impossible()
        self.at += size
        return int(struct.unpack(">I" if size == 4 else ">Q", field)[0])

    def _skip(self, size: int) -> None:
        """Pass what is padded to four bytes."""
        if size > len(self.data) - self.at:
            raise self._impossible()
        self.at += -(-size // 4) * 4

    def _impossible(self) -> Unreadable:
        return Unreadable(f"is no readable netCDF file (its header cannot be true at byte {self.at})")
