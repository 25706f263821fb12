"""Removes the outputs that nobody saved, and never anything that somebody did.

The names say the flow: ``settings`` and ``request`` say what a run may do, ``cycle`` runs the ``phases``, which
reach the world only through ``database``, ``object_store`` and the file system, and account for it in ``result``.
"""
