"""The three phases of a cycle; each takes its collaborators as arguments and returns a ``PhaseResult``."""
