"""An emulator of Supabase Storage: rows in ``storage.objects`` of a real PostgreSQL, bytes on disk, the same answers.

It is a package of its own: it imports nothing of this project, and what it needs is handed to it when it is started.
``python -m local.storage_emulator --help`` says how; ``local.storage`` starts it for the stack, tests and benchmarks.

Reproduced, as recorded from a real server (``tests/contract``):

- buckets; uploads, signed uploads, upserts, moves and copies; downloads through every kind of URL;
- bulk removal in transactions of 500 names, with at most 1,000 names and 1 MiB of JSON a request;
- listing by folder and by cursor;
- keys, row-level security, and the role that each transaction takes on;
- a bounded pool of connections with its timeouts;
- the body and the HTTP status of each error.

Not reproduced: transformed images (they are handed out as they are), resumable and S3 uploads, limits on size and type,
listing by cursor with folders or in another order than that of names, webhooks, asymmetric keys, and how long a real
server takes (``latency_ms`` makes up for that).

Added: faults on demand and counters, below ``/_control``; the module ``control`` documents them.
"""
