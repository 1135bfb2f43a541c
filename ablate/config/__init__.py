"""The typed configuration of a trial, and the source of its options."""
