"""The stages of a run's uplink in their order, and both directions through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from fedsense_core.codecs.codec import codec_of
from fedsense_core.config import Config
from fedsense_core.protocol.uplink.clip import Clip
from fedsense_core.protocol.uplink.encode import Encode
from fedsense_core.protocol.uplink.feedback import Feedback
from fedsense_core.protocol.uplink.predict import Predict
from fedsense_core.protocol.uplink.stage import Stage
from fedsense_core.tensors import TensorTable


@dataclass(frozen=True)
class Uplink:
    """One client's update of one round, on its way: clip, feedback, predict, encode."""

    stages: Sequence[Stage]
    encode: Encode

    @classmethod
    def of(
        cls, config: Config, table: TensorTable, seed: int, predicted: Tensor | None, residual: Tensor | None = None
    ) -> Uplink:
        """Return the stages that a run asks for.

        ``predicted`` is γ m̂ (N,), None for zero. ``residual`` is the client's e (N,), None for
        zero and at the server, which has no use for it.
        """
        stages: list[Stage] = []
        if config.uplink.clip and not config.sends_models:
            stages.append(Clip(config.uplink.clip))
        if config.feedback_in_use:
            stages.append(Feedback(residual))
        if predicted is not None:
            stages.append(Predict(predicted))
        return cls(stages, Encode(codec_of(config.uplink), table, seed, unbiased=not config.feedback_in_use))

    def send(self, delta: Tensor) -> bytes:
        """Return the payload of an update (N,), or of a whole model; stages note what was lost."""
        x = delta
        for stage in self.stages:
            x = stage.forward(x)
        payload = self.encode.forward(x)
        if any(type(stage).settle is not Stage.settle for stage in self.stages):
            self._settle(payload)
        return payload

    def receive(self, payload: memoryview | bytes, out: Tensor | None = None) -> Tensor:
        """Return Δ̂ (N,), in ``out`` where it is given. Raises FrameError for an unsound
        payload."""
        x = self.encode.inverse(payload, out)
        for stage in reversed(self.stages):
            x = stage.inverse(x)
        return x

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return what the client's next round needs, by ``stage.name``."""
        return {f"{stage.name}.{key}": value for stage in self.stages for key, value in stage.state_dict().items()}

    def _settle(self, payload: bytes) -> None:
        restored = self.encode.inverse(payload)
        for stage in reversed(self.stages):
            stage.settle(restored)
            restored = stage.inverse(restored)
