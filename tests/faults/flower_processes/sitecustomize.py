"""Lets the Flower processes of a test notice sooner that another one is gone.

Python imports a file of this name at its start where its folder is in PYTHONPATH. With Flower's own
30 s between heartbeats a killed process is missed after 30 to 70 s; all else stays as it is.
"""

import os
import sys
from pathlib import Path

INTERVAL = os.environ.get("FAULTS_HEARTBEAT_S")

PROGRAM = Path(next((word for word in sys.orig_argv[1:] if not word.startswith("-")), "")).name

if INTERVAL and PROGRAM.startswith(("flower-", "flwr-", "prepared_superexec")):
    import flwr.common.constant as constant

    constant.HEARTBEAT_DEFAULT_INTERVAL = int(INTERVAL)
    constant.HEARTBEAT_CALL_TIMEOUT = 2
    constant.HEARTBEAT_MIN_INTERVAL = 1
