"""Who runs the workers: processes of this machine, or a Ray cluster. Both lose one video to a crash, not the run."""
