"""A dashboard of a group of runs as code: what it shows, read off the runs, and the same as wandb's workspace."""
