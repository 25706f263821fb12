"""Checks: what is asked, what it means, what to do."""
