"""Trials, factors, cells and cohorts: what a sweep consists of."""
