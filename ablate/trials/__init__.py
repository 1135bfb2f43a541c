"""What a sweep consists of: trials, factors, cells, cohorts."""
