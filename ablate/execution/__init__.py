"""A sweep from its trials to its results."""
