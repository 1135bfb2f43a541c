"""The typed configuration of a trial, and where its choices come from."""
