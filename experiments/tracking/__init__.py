"""Weights & Biases: one run per fold and one per cell and seed, grouped by cell; offline where there is no key."""

from experiments.tracking.runs import Entry, configuration, group
from experiments.tracking.tracker import Tracker
from experiments.tracking.trials import check_trial, is_trial
from experiments.tracking.upload import sync

__all__ = ["Entry", "Tracker", "check_trial", "configuration", "group", "is_trial", "sync"]
