"""One cycle and its phases."""
