"""What an institution lets a run do on its machine: its policy file, and what breaks it."""

from fedsense_core.policy.judging import breaches
from fedsense_core.policy.policy_file import FILE, Policy, default_file, read_policy

__all__ = ["FILE", "Policy", "breaches", "default_file", "read_policy"]
