"""Removes the outputs that nobody saved, and never anything that somebody did.

docs/architecture.md shows the rooms, what each may touch, and the way of an event and of an orphan through them.
"""
