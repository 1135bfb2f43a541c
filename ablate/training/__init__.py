"""The epoch loop."""
