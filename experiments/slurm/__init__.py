"""Sweeps on a SLURM cluster.

``mer sweep --launcher slurm`` prepares the data where it is called, because only then is it known which clips and thus
which folds there are; it submits the folds that have no file, and returns. A job is the command ``mer sweep --folds``
with some folds of one cell and seed, which trains them in local workers on the CPUs or GPUs that SLURM gives it: the
predictions are those of any other machine, and a job that dies has lost the folds in flight.
"""
