"""Checks before training, verdicts after it, and advice."""
