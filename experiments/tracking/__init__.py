"""Weights & Biases: runs made from the results folder, one per fold and one per cell and seed, grouped by cell."""

from experiments.tracking.runs import ModelRun, group_name
from experiments.tracking.session import Request
from experiments.tracking.trials import check_trial, is_trial
from experiments.tracking.uploads import LIMIT, Uploads, sync

__all__ = ["LIMIT", "ModelRun", "Request", "Uploads", "check_trial", "group_name", "is_trial", "sync"]
