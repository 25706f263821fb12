"""Campaigns: long experiments that try to break what the system promises, with the figures that they came to.

``python -m tests.campaigns`` runs all of them (``make prove``); the short form of each is among the tests.

========== ==========================================================================================================
race       saves against cycles, on real PostgreSQL: nothing that was saved is lost
kill       SIGKILL at every boundary between two statements or requests: the next cycles finish what was begun
faults     everything that Storage and the database can do to a request
fuzz       URLs, events, parameters, file trees and metadata of any content
deadlock   application transactions of every shape against cycles and installations: no deadlock has a victim
alarms     every pair of failures over the template's alarms: each reaches a subscriber, healthy months reach nobody
clauses    what protects a saved file is taken away, one thing at a time: a test then loses one
========== ==========================================================================================================
"""
