"""The settings of a run: one strict, frozen tree, each field with its sentence below it."""

from fedsense_core.settings.clients import AlignmentSection, GuidanceSection, RetentionSection, TrainSection
from fedsense_core.settings.config import FREE_KEYS, SCALED_CODECS, UNBIASED_CODECS, Config
from fedsense_core.settings.imagery import DataSection, ModelSection, PartitionSection
from fedsense_core.settings.run import AdmissionSection, FederationSection, RunSection
from fedsense_core.settings.section import AsTuple, Section
from fedsense_core.settings.server import (
    AggregationSection,
    CodecSection,
    DistillationSection,
    DownlinkSection,
    OuterSection,
    UplinkSection,
)

__all__ = [
    "FREE_KEYS",
    "SCALED_CODECS",
    "UNBIASED_CODECS",
    "AdmissionSection",
    "AggregationSection",
    "AlignmentSection",
    "AsTuple",
    "CodecSection",
    "Config",
    "DataSection",
    "DistillationSection",
    "DownlinkSection",
    "FederationSection",
    "GuidanceSection",
    "ModelSection",
    "OuterSection",
    "PartitionSection",
    "RetentionSection",
    "RunSection",
    "Section",
    "TrainSection",
    "UplinkSection",
]
