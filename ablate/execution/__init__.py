"""Running a sweep, from its trials to its results."""
