"""Studies: commands that run ablate and write pages of `docs/` from what they find, with the templates beside them."""
