-- The locks. Whoever saves holds the objects that the asset names, and the id of each job that it names, whether or not that
-- job exists or has a URL yet; a job that takes a URL holds its object; a claim takes its object and every job that holds
-- it. So a save and a claim of the same object meet at a row, and one of them sees what the other did.
--
--   - Holders take a key share, until their transaction ends. Key shares don't exclude each other, so two transactions of
--     the application never wait for each other here, in whatever order they save.
--   - A claim skips what is held and never waits, so nobody can wait for each other in a circle.
--   - A claim looks in a statement after the one that locks, and updates the row in the same transaction. Both are needed:
--     without the update, a save above read committed that waited would go on with a snapshot from before the claim; with
--     it, the save fails to serialize.

create or replace function storage_cleanup.slot(job uuid) returns integer
language sql immutable strict parallel safe
return (uuid_hash_extended(job, 0) & 8191)::integer;

-- The rows of the locks for these jobs and objects.
create or replace function storage_cleanup.slots(jobs uuid[], objects bigint[]) returns integer[]
language sql immutable parallel safe
return array(select storage_cleanup.slot(job) from unnest(jobs) as job
             union select (object & 8191)::integer from unnest(objects) as object);

create or replace function storage_cleanup.hold(jobs uuid[], objects bigint[]) returns void
language plpgsql
as $$
begin
    perform from storage_cleanup.lock where slot = any (storage_cleanup.slots(jobs, objects)) order by slot for key share;
end $$;

-- Takes what nobody holds, and returns it.
create or replace function storage_cleanup.take(wanted integer[]) returns integer[]
language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
declare
    taken integer[];
begin
    taken := array(select slot from storage_cleanup.lock where slot = any (wanted) order by slot for update skip locked);
    update storage_cleanup.lock set n = n + 1 where slot = any (taken);
    return taken;
end $$;

-- Takes these jobs, and their rows, as far as nobody holds them; returns those.
create or replace function storage_cleanup.take_jobs(jobs uuid[]) returns uuid[]
language plpgsql security definer set search_path = '' set enable_seqscan = off
as $$
#variable_conflict use_variable
declare
    taken integer[] := storage_cleanup.take(storage_cleanup.slots(jobs, '{}'));
begin
    return array(select job.id from public.render_jobs as job
                 where job.id in (select asked.id from unnest(jobs) as asked (id) join unnest(taken) as own (slot) on own.slot = storage_cleanup.slot(asked.id))
                 order by job.id for update skip locked);
end $$;
