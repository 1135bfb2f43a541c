"""Data sets: each becomes one `Dataset` of normalised samples and labels."""
