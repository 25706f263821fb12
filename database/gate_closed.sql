-- Waits for claims that are being made, and stops others to the end of this: neither may meet functions of two releases.
lock table storage_cleanup.gate in access exclusive mode;
-- What an interrupted `make install-database` has left shut: 'now' says so below.
update storage_cleanup.gate set opens_at = now() where opens_at = 'infinity';
