"""Who computes: lanes in, numbers out."""
