"""Training, checkpoints, evaluation and run folders."""
