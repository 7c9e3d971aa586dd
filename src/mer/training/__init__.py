"""Training: what a network learns by, one fold at a time or many folds as one program."""
