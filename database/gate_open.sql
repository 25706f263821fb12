-- A claim that has waited at the gate began with the functions as they were: it is refused, and so is what begins before the
-- commit.
update storage_cleanup.gate set opens_at = clock_timestamp() + interval '5 seconds'
where opens_at = now() or exists (select from storage_cleanup_changed);
