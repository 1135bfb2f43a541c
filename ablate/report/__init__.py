"""The report of a sweep or of several: a page with a table of their cells, and a picture of their curves."""
