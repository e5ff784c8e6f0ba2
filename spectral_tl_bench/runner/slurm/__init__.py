"""Cells as jobs of a SLURM cluster: what a job asks for, which cells are queued, how jobs are submitted and go on."""
