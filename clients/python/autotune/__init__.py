"""The Python client of the autotune daemon."""
