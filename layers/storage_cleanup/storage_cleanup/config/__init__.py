"""The parameters, read and checked as a whole."""
