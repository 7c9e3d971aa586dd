"""The runs: the command line, one fold, a sweep of folds, and what becomes of their predictions."""
