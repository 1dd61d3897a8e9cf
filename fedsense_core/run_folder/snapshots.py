"""The models of a run's last round on disk: what clients started from, what each made of it, what
the server made.

One file a model, flat float32 (N,) under the key ``weights``: ``global``, ``start``, and one for
each client. So the folder is written, and read, with one client's model in memory at a time. It
takes 4 N bytes for each client and twice that for the server.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedsense_core.atomic_io import whole_folder
from fedsense_core.errors import CheckpointError
from fedsense_core.run_folder.paths import safe_name
from fedsense_core.tensors import TensorTable

GLOBAL, START, CLIENT = "global", "start", "client-"
SUFFIX = ".safetensors"


def write_snapshots(
    folder: Path, table: TensorTable, *, start: Tensor, final: Tensor, clients: Iterable[tuple[str, Tensor]]
) -> None:
    """Write ``start`` ŵ, ``final`` w and each client's (site, w_i), all (N,), to ``folder``, whole
    or not at all."""
    with whole_folder(folder) as temporary:
        _write(temporary / f"{GLOBAL}{SUFFIX}", final, table)
        _write(temporary / f"{START}{SUFFIX}", start, table)
        for number, (site, weights) in enumerate(clients):
            # Numbered, since two sites may have the same harmless name.
            _write(temporary / f"{CLIENT}{number:05d}-{safe_name(site)}{SUFFIX}", weights, table, site)


@dataclass(frozen=True)
class Snapshots:
    """What `write_snapshots` wrote; nothing is read before it is asked for."""

    folder: Path
    table: TensorTable

    def final(self) -> Tensor:
        """Return the global model w (N,). Raises CheckpointError, like the others, for a damaged or
        strange file."""
        return self._read(self.folder / f"{GLOBAL}{SUFFIX}")[1]

    def start(self) -> Tensor:
        """Return the model ŵ (N,) from which the clients started in the last round."""
        return self._read(self.folder / f"{START}{SUFFIX}")[1]

    def clients(self) -> Iterator[tuple[str, Tensor]]:
        """Yield site and model w_i (N,) of each client that was accepted in the last round, in the
        order of names."""
        return (self._read(path) for path in self._client_files())

    def __len__(self) -> int:
        """Return how many clients there are."""
        return len(self._client_files())

    def _client_files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{CLIENT}*{SUFFIX}"))

    def _read(self, path: Path) -> tuple[str, Tensor]:
        try:
            with safe_open(path, framework="pt") as file:
                about, weights = file.metadata() or {}, file.get_tensor("weights")
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}): restore it, or run again.") from error
        if about.get("table") != self.table.digest.hex() or len(weights) != self.table.numel:
            raise CheckpointError(
                f"{path} holds another model than config.json builds: analyse the run with the release, and the timm, "
                "that made it."
            )
        return about.get("site", ""), weights


def _write(path: Path, weights: Tensor, table: TensorTable, site: str = "") -> None:
    save_file({"weights": weights.contiguous()}, path, {"table": table.digest.hex(), "site": site})
