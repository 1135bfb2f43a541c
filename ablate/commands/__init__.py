"""What the command line calls. Hydra is known here only."""
