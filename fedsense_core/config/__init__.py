"""The settings of a run: one strict, frozen tree, and how it is made of what a user says."""

from fedsense_core.config.imagery import DataSection, ModelSection, PartitionSection
from fedsense_core.config.list_values import AsTuple
from fedsense_core.config.local_training import AlignmentSection, GuidanceSection, PersonalisationSection, TrainSection
from fedsense_core.config.resolve import FROM_PRESET, check_key, flower_defaults, known_keys, resolve
from fedsense_core.config.run import AdmissionSection, FederationSection, RunSection
from fedsense_core.config.server import (
    AggregationSection,
    DistillationSection,
    DownlinkSection,
    OuterSection,
    UplinkSection,
)
from fedsense_core.config.tree import FREE_KEYS, LATER_KEYS, Config
from fedsense_core.section import Section

__all__ = [
    "FREE_KEYS",
    "FROM_PRESET",
    "LATER_KEYS",
    "AdmissionSection",
    "AggregationSection",
    "AlignmentSection",
    "AsTuple",
    "Config",
    "DataSection",
    "DistillationSection",
    "DownlinkSection",
    "FederationSection",
    "GuidanceSection",
    "ModelSection",
    "OuterSection",
    "PartitionSection",
    "PersonalisationSection",
    "RunSection",
    "Section",
    "TrainSection",
    "UplinkSection",
    "check_key",
    "flower_defaults",
    "known_keys",
    "resolve",
]
