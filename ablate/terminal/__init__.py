"""What the user sees while a sweep runs."""
