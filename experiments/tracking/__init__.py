"""Weights & Biases: one run per fold and one per cell and seed, grouped by cell; offline where there is no key."""

from experiments.tracking.runs import Entry, check_trial, configuration, group_name, is_trial
from experiments.tracking.tracker import Tracker, sync

__all__ = ["Entry", "Tracker", "check_trial", "configuration", "group_name", "is_trial", "sync"]
