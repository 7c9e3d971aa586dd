"""Sweeps on a SLURM cluster.

``mer sweep --launcher slurm`` prepares the data on the machine where it is called, because the data decide which folds
there are. Then it submits the folds that have no file, and returns. A job is the command ``mer sweep --folds`` with
some folds of one cell and seed. It trains them in local workers on the CPUs or GPUs that SLURM gives it. A job that
dies loses only the folds in flight.
"""
