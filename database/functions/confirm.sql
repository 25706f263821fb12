-- Which of these claims are of an object that is another upload by now, or of a job that was rendered again since? And is
-- there an object of that name?
create or replace function storage_cleanup.replaced_among(jobs uuid[]) returns table (job_id uuid, is_there boolean)
language sql stable security definer set search_path = '' set enable_seqscan = off
as $$
    select claim.job_id, stored.id is not null
    from unnest(jobs) as asked (job_id)
    cross join lateral (
        select * from storage_cleanup.deletion as ledger where ledger.job_id = asked.job_id and state = 'claimed' limit 1) as claim
    left join lateral (
        select object.id, object.version from storage.objects as object
        where object.bucket_id = claim.bucket_id and object.name = claim.object_name limit 1) as stored on true
    left join storage_cleanup.job() as job on job.id = claim.job_id
    left join storage_cleanup.candidate as again on again.job_id = claim.job_id
    where storage_cleanup.version(stored.id, stored.version) <> claim.version or job.status <> 'completed' or again.completed_at > claim.claimed_at
$$;

-- When no request for a claim can be at work any more, whatever became of whoever made it, or adopted it, at that time: a
-- claim may be acted on for 60 seconds, a request takes 30 till the client gives up, and 30 till the server does. Before that,
-- nobody may take the claim for settled: the name could be used again, and saved, and removed by that request.
create or replace function storage_cleanup.quiet_at(since timestamptz) returns timestamptz
language sql stable parallel safe
return since + interval '150 seconds';

-- The next claims whose lease is over, or whose request has ended, locked.
create or replace function storage_cleanup.abandoned(this_run uuid, batch_size integer) returns setof uuid
language sql security definer set search_path = '' set enable_seqscan = off set enable_bitmapscan = off
as $$
    select deletion.job_id from storage_cleanup.deletion
    where state = 'claimed' and run_id <> this_run
      and (attempts < 5 or attempted_at < clock_timestamp() - interval '15 minutes') and (quiet_at < clock_timestamp()) is not false
    order by deletion.job_id limit batch_size
    for update of deletion skip locked
$$;

-- Takes over claims that another run has left. Removing a file twice is harmless, so they are simply finished;
-- but a claim that failed five times is given up, once no request for it can still be under way.
create or replace function storage_cleanup.adopt(this_run uuid, batch_size integer)
returns table (job_id uuid, outcome text, bucket_id text, object_name text, bytes bigint)
language plpgsql security definer set search_path = '' set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    adopted uuid[];
    keys    text[];
    holders uuid[];
    replaced uuid[];
    needed  text[];      -- objects that somebody saved, by whatever job
    saved   uuid[];
begin
    perform storage_cleanup.assert_trust();
    adopted := array(select storage_cleanup.abandoned(this_run, batch_size));
    -- Jobs that share a file make one file: they are taken together.
    adopted := adopted || array(
        select other.job_id
        from storage_cleanup.deletion as one
        join storage_cleanup.deletion as other
            on other.object = one.object
        where one.job_id = any (adopted) and one.state = 'claimed' and other.job_id <> all (adopted)
          and other.state = 'claimed' and other.run_id <> this_run
          and (other.quiet_at < clock_timestamp()) is not false
        order by other.job_id
        for update of other skip locked);
    -- No save passes while a claim stands; if one did (the triggers were off), the file stays.
    keys := array(select bucket_id || '/' || object_name from storage_cleanup.deletion where state = 'claimed' and deletion.job_id = any (adopted));
    holders := array(select storage_cleanup.saved_among(adopted || array(
        select job_id from storage_cleanup.holder
        where object in (select storage_cleanup.hash(key) from unnest(keys) as key
                         union select storage_cleanup.hash(storage_cleanup.bare(key)) from unnest(keys) as key))));
    needed := array(
        select bucket_id || '/' || object_name from storage_cleanup.deletion
        where state = 'claimed' and deletion.job_id = any (adopted)
          and (deletion.job_id = any (holders)
               or exists (select from storage_cleanup.holder
                          where holder.job_id = any (holders) and holder.object in (deletion.object, deletion.bare)))
        union select storage_cleanup.needed_among(keys));
    saved := array(select deletion.job_id from storage_cleanup.deletion
                   where state = 'claimed' and deletion.job_id = any (adopted) and bucket_id || '/' || object_name = any (needed));
    perform storage_cleanup.release(saved, 'saved');
    replaced := array(select replaced.job_id from storage_cleanup.replaced_among(adopted) as replaced except select unnest(saved));
    perform storage_cleanup.release(replaced, 'rendered_again');
    return query
    with given_up as (
        select deletion.job_id, deletion.bucket_id, deletion.object_name from storage_cleanup.deletion
        where state = 'claimed' and deletion.job_id = any (adopted) and deletion.job_id <> all (saved || replaced) and attempts >= 5
    ),
    released as (
        select storage_cleanup.release(array_agg(job_id), 'stuck') from given_up
    ),
    resumed as (
        update storage_cleanup.deletion
        set run_id = this_run, quiet_at = storage_cleanup.quiet_at(clock_timestamp()), updated_at = clock_timestamp()
        where state = 'claimed' and deletion.job_id = any (adopted) and deletion.job_id <> all (saved || replaced)
          and deletion.job_id not in (select job_id from given_up)
        returning deletion.job_id, deletion.bucket_id, deletion.object_name, deletion.bytes
    )
    select job_id, 'claimed', bucket_id, object_name, bytes from resumed
    union all
    select job_id, 'stuck', bucket_id, object_name, 0 from given_up cross join (select count(*) from released) as done
    union all
    select job, case when job = any (holders) then 'saved' else 'shared_with_kept_job' end, null, null, 0
    from unnest(saved) as job
    union all
    select job, 'rendered_again', null, null, 0 from unnest(replaced) as job;
end $$;

-- Gives claims back: the job can be saved again, and is looked at again later. Only for claims whose removal was never
-- asked for, or so long ago that no request can still be under way.
create or replace function storage_cleanup.release(jobs uuid[], reason text) returns void
language sql security definer set search_path = ''
as $$
    with released as (
        update storage_cleanup.deletion
        set state = 'released', last_error = coalesce(last_error, release.reason), updated_at = clock_timestamp()
        where job_id = any (jobs) and state in ('claimed', 'file_deleted')
        returning job_id, coalesce(completed_at, now()) as completed_at
    )
    insert into storage_cleanup.candidate (job_id, since, completed_at, has_file, reason)
    select id, case release.reason when 'stuck' then now() + interval '1 hour' when 'row_protected' then now()
                    else released.completed_at end,
           released.completed_at, storage_cleanup.has_file(output_url), release.reason
    from released join storage_cleanup.job() on id = job_id
    on conflict do nothing
$$;

-- Gives back claims that this run has made and never sent to Storage: somebody stopped it in between. Not those that it
-- adopted: nobody knows what the run before has asked for. Not those that another run has taken over meanwhile. Returns
-- the jobs whose claims this run still had.
create or replace function storage_cleanup.give_back(this_run uuid, jobs uuid[]) returns setof uuid
language plpgsql security definer set search_path = ''
as $$
declare
    mine uuid[] := array(
        select job_id from storage_cleanup.deletion
        where job_id = any (jobs) and run_id = this_run and state = 'claimed' and attempts = 0
        order by job_id for update);
begin
    perform storage_cleanup.release(mine, 'given_back');
    return query select unnest(mine);
end $$;

-- Gives back what dead runs have claimed and not removed, for a system that is switched off: nobody would finish it, and
-- its jobs could not be saved meanwhile. Nobody knows what a dead run has asked Storage for. But an invocation lives for 15
-- minutes at most, and what it asks for at the end takes less than one more (20 seconds until the client gives up, 30 until
-- the server does). A file that is there after that stays; a claim whose file is gone is left to a run that may finish it.
create or replace function storage_cleanup.give_back_abandoned() returns bigint
language plpgsql security definer set search_path = '' set enable_seqscan = off set enable_bitmapscan = off
as $$
declare
    long_ago  constant timestamptz := clock_timestamp() - interval '16 minutes';
    abandoned uuid[] := array(
        select claim.job_id from storage_cleanup.deletion as claim
        left join storage_cleanup.run as owner on owner.id = claim.run_id
        where claim.state = 'claimed' and (owner.id is null or owner.started_at < long_ago)
          and claim.claimed_at < long_ago and (claim.attempted_at < long_ago) is not false
          and exists (select from storage.objects as stored
                      where stored.bucket_id = claim.bucket_id and stored.name = claim.object_name)
        order by claim.job_id limit 10000
        for update of claim skip locked);
begin
    perform storage_cleanup.release(abandoned, 'given_back');
    return cardinality(abandoned);
end $$;

-- A file is gone when storage.objects says so. Marks those, counts an attempt for the others, and says which is which. Where
-- another upload has taken the name meanwhile, that one isn't ours: the claim is given back. But not yet while a request is open,
-- for it got no answer: Storage carries it out all the same, later.
create or replace function storage_cleanup.settle(this_run uuid, jobs uuid[], error text, is_open boolean)
returns table (job_id uuid, gone boolean, is_replaced boolean)
language plpgsql security definer set search_path = '' set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    replaced uuid[];
begin
    perform storage_cleanup.assert_trust();
    replaced := array(select replaced.job_id from storage_cleanup.replaced_among(jobs) as replaced where is_there);
    if not is_open then
        perform storage_cleanup.release(replaced, 'rendered_again');
    end if;
    return query
    with checked as materialized (      -- one look into each index for each job, whatever the planner thinks of the ledger
        select claim.job_id, stored.id is null as gone
        from unnest(jobs) as asked (job_id)
        cross join lateral (
            select * from storage_cleanup.deletion as ledger
            where ledger.job_id = asked.job_id and ledger.state = 'claimed' limit 1) as claim
        left join lateral (
            select object.id from storage.objects as object
            where object.bucket_id = claim.bucket_id and object.name = claim.object_name limit 1) as stored on true
        where asked.job_id <> all (replaced)
    )
    update storage_cleanup.deletion
    set state = case when gone then 'file_deleted' else 'claimed' end,
        attempts = case when gone then 0 else attempts + 1 end,     -- once it is gone, attempts at the row are counted
        attempted_at = clock_timestamp(), updated_at = clock_timestamp(),
        quiet_at = case when is_open then storage_cleanup.quiet_at(clock_timestamp()) end,
        last_error = case when not gone then coalesce(error, 'Storage answered, but the object is still there') end
    from checked
    where deletion.job_id = checked.job_id and deletion.state = 'claimed'
    returning deletion.job_id, gone, false;
    return query select unnest(replaced), false, true;
end $$;
