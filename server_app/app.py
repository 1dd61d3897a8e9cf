"""The ServerApp: wiring only."""

from __future__ import annotations

from logging import ERROR

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from fedsense_core.config import resolve
from fedsense_core.errors import FedSenseError
from server_app.session import run_session

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one federation from start to encoder."""
    try:
        run_session(resolve(context.run_config), grid)
    except FedSenseError as error:
        log(ERROR, "FedSense stopped: %s", error)
        raise
