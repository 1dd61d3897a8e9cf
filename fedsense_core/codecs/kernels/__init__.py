"""Machine code for the rotated codecs: ``launch.py`` runs the kernels in ``numba_kernels.py``."""
