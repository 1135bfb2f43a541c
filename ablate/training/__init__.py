"""The epoch loop over a cohort."""
