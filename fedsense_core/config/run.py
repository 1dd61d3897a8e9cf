"""How long a run is, who takes part, and which replies count."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedsense_core.section import Section

LONGEST_S = 2_592_000
"""Thirty days: nobody waits longer for anything."""


class RunSection(Section):
    """How long the run is and where it is written."""

    rounds: int = Field(8, ge=1, le=100_000)
    """Rounds of federated training."""
    seed: int = Field(0, ge=0, le=2**63 - 1)
    """Seed of initial weights, batches, augmentations and codec rotations."""
    folder: str = "auto"
    """Run folder, an absolute path; ``auto`` is ``~/.fedsense/runs/<preset>-seed<seed>``."""
    resume: Literal["auto", "never"] = "auto"
    """``auto`` continues an unfinished run with the same configuration; ``never`` refuses an
    existing folder."""
    continued_from: str = ""
    """Folder of a run that this one goes on from, on the server's disk: a finished one (``fedsense
    run --continue`` sets it), or one that keeps the checkpoint after ``run.rounds_before`` rounds.
    Empty: begin anew."""
    rounds_before: int = Field(0, ge=0, le=100_000)
    """Rounds of that run that are taken over. Their numbers and ``run.rounds`` count on; the
    learning rate begins a new schedule after them."""
    evaluate_every: int = Field(2, ge=0, le=100_000)
    """Probe the encoder every E rounds and after the last; 0 never."""
    keep_checkpoints: int = Field(2, ge=1, le=100_000)
    """Newest checkpoints that stay on disk, beside those before an institution's first update."""
    keep_models: bool = True
    """Keep the last round's global model and what each client made of it, for ``fedsense
    analyse``."""
    report: bool = True
    """Write report.html at the end."""


class FederationSection(Section):
    """Who takes part, and when a round counts."""

    participation: float = Field(1.0, gt=0, le=1)
    """Share of the available clients asked in each round."""
    min_clients: int = Field(1, ge=1, le=100_000)
    """Clients that must be connected before a round begins."""
    quorum: int = Field(1, ge=1, le=100_000)
    """Accepted replies that a round needs; with fewer it is repeated, and in the end pauses the
    run."""
    retries: int = Field(4, ge=0, le=100)
    """How often a round below the quorum is repeated before the run is paused, and how often in a
    round a client is asked again that was lost."""
    pause_s: float = Field(30.0, ge=0, le=86_400)
    """Seconds before a round is repeated; each further pause is twice as long."""
    late_factor: float = Field(3.0, ge=0, le=1_000)
    """Times the median answer time after which a round goes on without a client, once the quorum
    and half of all have answered. For institutions with keys, not in simulations; 0 is never."""
    wait_s: float = Field(600.0, ge=0, le=LONGEST_S)
    """Seconds to wait for ``min_clients`` before giving up."""
    deadline_s: float = Field(3600.0, gt=0, le=LONGEST_S)
    """Seconds after which a round goes on without the replies that are missing."""
    only: str = ""
    """Name of the one site that trains (``standalone``); empty: everybody."""
    pooled: bool = False
    """One client opens every site file (``centralised``; simulation only)."""
    sites: str = "sample"
    """Simulation: folder of site files, one per SuperNode in name order; ``sample`` is the shipped
    federation."""
    public: str = "sample"
    """Site file of the public imagery, read by the server; ``sample`` is the shipped set."""
    labelled: str = "sample"
    """Folder of the labelled set for the probes, read by the server; ``sample`` is the shipped set,
    empty is none."""


class AdmissionSection(Section):
    """What a reply must satisfy to count."""

    max_examples: int = Field(10_000_000, ge=1, le=10_000_000_000)
    """Largest example count a client may claim for one round."""
    max_chips: int = Field(200_000, ge=1, le=1_000_000_000)
    """Most chips that a client may say it has, where they are its weight
    (``aggregation.weights``), and whose pixels its statistics may count."""
    norm_factor: float = Field(10.0, gt=1, le=1_000_000)
    """Largest update norm relative to the median of those accepted in the last rounds, and to that
    of its own round."""
    norm_rounds: int = Field(5, ge=1, le=100_000)
    """How many rounds the last ones are."""
    first_round_max_norm: float = Field(1_000.0, gt=0, le=1_000_000_000)
    """Largest update norm while nothing has been accepted yet, whatever its own round says."""
