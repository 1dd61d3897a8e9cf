"""What is trained, what it sees, and how imagery is shared out in studies."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fedsense_core.config.architecture_args import check_architecture, check_args
from fedsense_core.config.list_values import AsTuple, BandNames, JsonTable
from fedsense_core.section import Section

Width = Annotated[int, Field(ge=1, le=16_384)]
"""Of a layer of the projection head."""

PUBLISHED = ("timm:", "hf-hub:")
"""How `model.weights` begins where it is a name that timm knows, and no path."""


class ModelSection(Section):
    """What is trained."""

    architecture: str = "resnet18"
    """timm model name."""
    args: Annotated[dict[str, Any], JsonTable] = Field(default_factory=dict)
    """Further arguments of ``timm.create_model`` that shape the architecture, as a table or as text
    in JSON, such as ``{"depth": 4}``; an error names those that are allowed. They are exported with
    the encoder."""
    weights: str = ""
    """Weights from which the encoder starts, read by the server alone: a safetensors or torch file,
    the folder of an exported encoder, or ``timm:NAME`` for those that timm publishes; empty draws
    them from ``run.seed``."""
    stem: Literal["auto", "plain", "wavelength"] = "auto"
    """What reads the bands: ``plain`` is timm's own convolution; ``wavelength`` makes the kernel of
    each band from its wavelength or polarisation; ``auto`` is ``wavelength`` where ``data.bands``
    is ``all``."""
    band_kernels: int = Field(16, ge=1, le=1024)
    """Kernels that are mixed into that of a band (wavelength)."""
    projector: Annotated[tuple[Width, Width], AsTuple] = (256, 64)
    """Hidden and output width of the projection head."""
    decoder_width: int = Field(96, ge=8, le=8192)
    """Width of the masked-image decoder of ViTs."""
    decoder_depth: int = Field(1, ge=1, le=64)
    """Transformer blocks of the masked-image decoder of ViTs."""
    local_parameters: Annotated[tuple[str, ...], AsTuple] = ()
    """Globs of parameter names that never leave the client."""

    @model_validator(mode="after")
    def _arguments_are_the_architectures(self) -> ModelSection:
        # They raise no ValueError: pydantic would wrap it and show the whole section as the wrong
        # value.
        check_architecture(self.architecture)
        check_args(self.args)
        return self


class DataSection(Section):
    """What the model sees."""

    bands: Annotated[Literal["all"] | tuple[str, ...], BandNames] = ("red", "green", "blue")
    """Bands read from every sensor, by name, as a list or a text with commas; ``all``: from each
    sensor all that it has."""
    chip_size: int = Field(64, ge=8, le=4096)
    """Side of the chips cut from the rasters, pixels."""
    view_size: int = Field(48, ge=8, le=4096)
    """Side of the views the model trains on, pixels."""
    min_scale: float = Field(0.3, gt=0, le=1)
    """Smallest share of a chip's area that a view shows."""
    jitter: float = Field(0.5, ge=0, le=100)
    """Strength of gain and offset changes; 0 turns them off."""
    blur: float = Field(0.0, ge=0, le=1)
    """Probability that a view is blurred (all recipes but mae)."""
    noise: float = Field(0.0, ge=0, le=10)
    """Largest deviation of white noise on a view, in deviations of the band (all recipes but
    mae)."""
    drop_bands: float = Field(0.0, ge=0, le=1)
    """Probability that some bands of a view, never all, are replaced by their mean (all recipes but
    mae)."""
    share_statistics: bool = False
    """Ask institutions for counts of pixel values by sensor and band, which are merged and exported
    with the encoder. Only those whose site file says ``share_statistics = true`` send them."""


class PartitionSection(Section):
    """Studies in simulation: how imagery is shared out among clients."""

    kind: Literal["sites", "iid", "blocks", "sensor", "dirichlet"] = "sites"
    """``sites``: one client for each site file; the others share all imagery out anew: at random,
    by region blocks, by sensor, or with mixes of classes drawn from a Dirichlet distribution."""
    clients: int = Field(8, ge=1, le=10_000)
    """Clients among whom all imagery is shared out (all kinds but ``sites``)."""
    tail: float = Field(0.0, ge=0, le=100)
    """Sizes fall as rank^-tail from client to client: 0 equal, 1 as in Zipf's law (all kinds but
    ``sites``)."""
    block_pixels: int = Field(512, ge=1, le=100_000)
    """Side of a region block in pixels of its scene (blocks, sensor)."""
    alpha: float = Field(0.5, gt=0, le=1_000_000)
    """Concentration of the mixes: large, all clients are alike; small, each has few classes
    (dirichlet)."""
    by: Literal["cluster", "label"] = "cluster"
    """Classes: ``label`` is the name of the folder that a scene's file lies in, ``cluster`` what a
    chip looks like."""
    clusters: int = Field(10, ge=2, le=1000)
    """Number of clusters (by ``cluster``)."""
