"""The encoder as timm loads it, when the run is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce

from fedsense_core.data.chips.sensor_statistics import SensorStatistics, SharedStatistics
from fedsense_core.data.sites.sensors import Band
from fedsense_core.encoder import export_encoder
from fedsense_core.models.pretraining import encoder_args
from fedsense_core.run_folder.folder import RunFolder
from server_app.callbacks.callback import RunCallback
from server_app.strategy import FedSense


@dataclass
class Export(RunCallback):
    """Writes the encoder with w, not the quantized replica, and marks the run as finished.

    Every sensor was standardised by its own statistics, so the encoder's own mean is 0 and its
    deviation 1; those of the public set, and of the institutions that share theirs, go with it.
    """

    run: RunFolder
    spectrum: tuple[Band, ...] = ()
    """What the bands of the exported encoder are: of a model that reads any, those it is exported
    for."""
    statistics: SensorStatistics = field(default_factory=SensorStatistics)
    """Of the public set."""

    def on_end(self, strategy: FedSense) -> None:
        """Export, then mark the run as finished."""
        strategy.table.write(strategy.weights, strategy.model)
        config = strategy.config
        model, data = config.model, config.data
        bands = self.spectrum if config.conditioned else data.bands
        shared = [channel.merged for channel in strategy.channels if isinstance(channel, SharedStatistics)]
        export_encoder(
            strategy.model.encoder.to("cpu"),
            self.run.encoder,
            architecture=model.architecture,
            model_args=encoder_args(model.architecture, len(bands), data.view_size, model.args),
            bands=bands,
            mean=[0.0] * len(bands),
            std=[1.0] * len(bands),
            image_size=data.view_size,
            extra={
                **{"preset": config.preset, "recipe": config.train.recipe, "rounds": strategy.rounds_done},
                "spectrum": [band.model_dump(exclude_defaults=True) for band in self.spectrum],
            },
            statistics=reduce(SensorStatistics.merge, shared, self.statistics).summary(),
        )
        self.run.finish({"rounds": strategy.rounds_done, "aggregated": strategy.aggregated})
