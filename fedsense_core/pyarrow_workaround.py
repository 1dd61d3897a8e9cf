"""Importing this module before scikit-learn is used waits for an import of pyarrow that another
thread has begun.

scikit-learn asks every input whether it is an Arrow table, by what it finds under pyarrow's name.
Ray imports pyarrow, where it is installed, in a thread of its own; a look in between finds half a
module, and the run ends with an AttributeError.
"""

from __future__ import annotations

import contextlib
import importlib

with contextlib.suppress(ImportError):  # optional: without it nothing is half there
    importlib.import_module("pyarrow")
