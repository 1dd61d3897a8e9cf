"""The report of a run.

``report``, ``plots`` and ``pictures`` are imported where they are used: matplotlib and torch take
seconds to load.
"""
