-- The next page of rows that other runs have left: their file is gone. One that keeps failing is not asked every time.
create or replace function storage_cleanup.leftover_rows(this_run uuid, after_job uuid, page_size integer) returns setof uuid
language sql stable security definer set search_path = '' set enable_seqscan = off set enable_bitmapscan = off
as $$
    select job_id from storage_cleanup.deletion
    where state = 'file_deleted' and job_id > after_job and run_id is distinct from this_run
      and (attempts < 3 or updated_at < now() - interval '1 hour') and (quiet_at < clock_timestamp()) is not false
    order by job_id limit page_size
$$;

-- Deletes rows, and says which are gone. It has no rights of its own, but those of delete_rows, which alone may call it.
-- The application's triggers run in this and find their tables as they do elsewhere. And delete_rows' settings don't hold
-- here, for they would hold for foreign keys, too: a table that references render_jobs without an index has to be scanned,
-- and a scan that seems to cost 1e10 is compiled each time. The subquery hides how many jobs there are, so they are looked
-- up in the primary key, however many.
create or replace function storage_cleanup.remove_rows(jobs uuid[]) returns uuid[]
language plpgsql set search_path = public, extensions, pg_temp set enable_seqscan = on set jit = off
as $$
begin
    delete from public.render_jobs as job where job.id = any (array(select unnest(remove_rows.jobs)));
    set constraints all immediate;      -- a deferred foreign key must speak here, not at commit
    return array(select unnest(jobs) except
                 select job.id from public.render_jobs as job where job.id = any (array(select unnest(remove_rows.jobs))));
end $$;

-- Deletes the rows of those of these jobs whose file is known to be gone. One that can't go (a foreign key, a trigger) is
-- reported and stays, and the others still go. One that a trigger or a rule of the application keeps (a soft delete) is
-- asked for three times, or until it has been changed instead; then it is done, although its row is still there.
create or replace function storage_cleanup.delete_rows(this_run uuid, jobs uuid[], keep_dependents boolean default true)
returns table (job_id uuid, outcome text, detail text)
language plpgsql security definer set search_path = '' set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    batch   uuid[];
    saved   uuid[];
    kept    uuid[];
    early   uuid[];      -- Storage may be at work for them
    needed  uuid[] := '{}';      -- rows of other tables refer to them by now; none can be added, for the jobs' rows are locked
    locked  uuid[];
    removed uuid[];
    staying uuid[] := '{}';     -- deleted without an error, and still there
    waiting uuid[];      -- neither kept nor locked: gone already, or in somebody else's hands
    missing uuid[];
    refused uuid[] := '{}';
    one     uuid;
begin
    perform storage_cleanup.assert_trust();
    early := array(
        select deletion.job_id from storage_cleanup.deletion
        where deletion.job_id = any (jobs) and state = 'file_deleted' and quiet_at >= clock_timestamp());
    batch := array(
        select deletion.job_id from storage_cleanup.deletion
        where deletion.job_id = any (jobs) and deletion.job_id <> all (early) and state = 'file_deleted'
        order by deletion.job_id
        for update skip locked);
    locked := array(
        select job.id from (select unnest(batch) as id) as wanted join public.render_jobs as job on job.id = wanted.id
        order by job.id for update of job skip locked);

    -- Nobody can save these; but a row that somebody needs is worth more than order.
    saved := array(select storage_cleanup.saved_among(batch));
    kept := array(     -- rendered again, or uploaded again under the same name
        select job.id from storage_cleanup.job() as job
        join storage_cleanup.deletion as ledger on ledger.job_id = job.id and ledger.state = 'file_deleted'
        left join lateral (
            select object.id from storage.objects as object
            where object.bucket_id = ledger.bucket_id and object.name = ledger.object_name limit 1) as stored on true
        where job.id = any (batch)
          and (stored.id is not null or job.status is distinct from 'completed'
               or exists (select from storage_cleanup.candidate as again
                          where again.job_id = job.id and again.completed_at > ledger.claimed_at)
               or case when ledger.object_name is null then storage_cleanup.has_file(job.output_url)
                       when job.output_url = ledger.job ->> 'output_url' then false
                       else storage_cleanup.object_key(job.output_url)
                            is distinct from ledger.bucket_id || '/' || ledger.object_name end));
    perform storage_cleanup.release(saved || kept, 'saved or rendered again');
    locked := array(select unnest(locked) except select unnest(saved || kept));
    if keep_dependents then
        needed := array(select storage_cleanup.dependent_among(locked));
        locked := array(select unnest(locked) except select unnest(needed));
        update storage_cleanup.deletion
        set attempts = attempts + 1, last_error = 'rows of other tables refer to the job', updated_at = clock_timestamp()
        where deletion.job_id = any (needed) and state = 'file_deleted';
        perform storage_cleanup.release(array(
            select deletion.job_id from storage_cleanup.deletion
            where deletion.job_id = any (needed) and state = 'file_deleted' and object_name is null), 'row_protected');
    end if;

    begin
        removed := storage_cleanup.remove_rows(locked);
        staying := array(select unnest(locked) except select unnest(removed));
    exception when others then              -- one row is in the way: find it, let the others go
        removed := '{}';
        staying := '{}';
        foreach one in array locked loop
            begin
                if one = any (storage_cleanup.remove_rows(array[one])) then
                    removed := removed || one;
                else
                    staying := staying || one;
                end if;
            exception when others then
                update storage_cleanup.deletion
                set attempts = attempts + 1, last_error = sqlerrm, updated_at = clock_timestamp()
                where deletion.job_id = one and state = 'file_deleted';
                refused := refused || one;
                return query select one, case when sqlstate in ('23503', '23001') then 'foreign_key' else 'refused' end, sqlerrm;
            end;
        end loop;
        -- A job that never had a file has lost nothing: it can be saved again.
        perform storage_cleanup.release(array(
            select deletion.job_id from storage_cleanup.deletion
            where deletion.job_id = any (refused) and state = 'file_deleted' and object_name is null), 'row_protected');
    end;
    update storage_cleanup.deletion as ledger
    set attempts = attempts + 1, last_error = 'a trigger or a rule of the application keeps the row', updated_at = clock_timestamp(),
        state = case when attempts < 2 and job.status = 'completed'
                      and (object_name is null and not storage_cleanup.has_file(job.output_url)
                           or storage_cleanup.object_key(job.output_url) = ledger.bucket_id || '/' || object_name)
                     then state else 'done' end
    from storage_cleanup.job() as job
    where ledger.job_id = any (staying) and ledger.state = 'file_deleted' and job.id = ledger.job_id;
    waiting := array(select unnest(batch) except select unnest(saved || kept || needed || locked));
    missing := array(select unnest(waiting) except select id from storage_cleanup.job() where id = any (waiting));
    return query
    with finished as (
        update storage_cleanup.deletion
        set state = 'done', last_error = null, updated_at = clock_timestamp()
        where deletion.job_id = any (removed || missing) and state = 'file_deleted'
        returning deletion.job_id
    )
    select job_id, case when job_id = any (missing) then 'already_missing' else 'deleted' end, null from finished
    union all
    select job, 'locked', null from unnest(waiting) as job where job <> all (missing)
    union all
    select job, 'saved', null from unnest(saved) as job
    union all
    select job, 'rendered_again', null from unnest(kept) as job where job <> all (saved)
    union all
    select job, 'foreign_key', 'rows of other tables refer to the job' from unnest(needed) as job
    union all
    select job, 'kept_by_trigger', null from unnest(staying) as job
    union all
    select job, 'request_at_work', null from unnest(early) as job
    union all
    select job, 'taken_over', null from unnest(jobs) as job where job <> all (batch || early);
end $$;

-- Claims old, unsaved, completed jobs that never had a file. There is nothing to remove, so delete_rows may follow at once.
create or replace function storage_cleanup.claim_fileless(
    this_run uuid, jobs uuid[], max_age interval, dry_run boolean, plan uuid, grace interval default '0',
    keep_dependents boolean default true)
returns table (job_id uuid, outcome text, detail text)
language plpgsql security definer set search_path = '' set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    locked    uuid[];
    saved     uuid[];
    dependent uuid[] := '{}';
    going     uuid[];
begin
    perform storage_cleanup.assert_may_claim(this_run, max_age);
    if dry_run then
        locked := array(select id from storage_cleanup.job() where id = any (jobs));
    else
        locked := storage_cleanup.take_jobs(jobs);
    end if;
    saved := array(select storage_cleanup.saved_among(locked));
    if keep_dependents then
        dependent := array(select storage_cleanup.dependent_among(locked));
    end if;
    going := array(
        select job.id from storage_cleanup.job() as job join storage_cleanup.candidate on candidate.job_id = job.id
        where job.id = any (locked) and job.id <> all (saved || dependent) and job.status = 'completed'
          and (unsaved_at is null or unsaved_at < now() - grace)
          and not exists (select from storage_cleanup.unsaved where unsaved.job_id = job.id and at >= now() - grace)
          and greatest(job.created_at, candidate.completed_at) < now() - max_age
          and not storage_cleanup.has_file(job.output_url)
          and not exists (select from storage_cleanup.deletion as ledger
                          where ledger.job_id = job.id and state <> 'released')
          and (plan is null or job.id in (select planned.job_id from storage_cleanup.plan_job as planned where run_id = plan)));
    if dry_run then
        insert into storage_cleanup.plan_job (run_id, job_id, has_file)
        select this_run, unnest(going), false on conflict do nothing;
    else
        insert into storage_cleanup.deletion (job_id, run_id, state, job, completed_at)
        select id, this_run, 'file_deleted', storage_cleanup.without_long_values(job.fields), candidate.completed_at
        from storage_cleanup.job() as job join storage_cleanup.candidate on candidate.job_id = id where id = any (going);
    end if;
    return query
    with verdict as (
        select asked.id, case
            when asked.id = any (saved) then 'saved'
            when job.id is null then 'job_gone'
            when asked.id <> all (locked) then 'locked'
            when job.status is distinct from 'completed' then 'job_not_completed'
            when storage_cleanup.has_file(job.output_url) then 'job_changed'
            when (greatest(job.created_at, candidate.completed_at) < now() - max_age and candidate.job_id is not null) is not true
                then 'job_too_young'
            when candidate.unsaved_at >= now() - grace
                 or exists (select from storage_cleanup.unsaved where unsaved.job_id = job.id and at >= now() - grace)
                then 'just_unsaved'
            when job.id = any (dependent) then 'has_dependents'
            when plan is not null and planned.job_id is null then 'not_in_plan'
            else 'already_claimed' end as reason
        from unnest(jobs) as asked (id)
        left join storage_cleanup.job() as job on job.id = asked.id
        left join storage_cleanup.candidate on candidate.job_id = asked.id
        left join storage_cleanup.plan_job as planned on planned.run_id = plan and planned.job_id = asked.id
        where asked.id <> all (going)
    ),
    parked as (
        select storage_cleanup.park(array_agg(id) || going, array_agg(reason) || array_fill('claimed'::text, array[cardinality(going)]), max_age)
        from verdict having not dry_run     -- not "where": an aggregate of no rows is a row, too
    )
    select id, reason, null from verdict cross join (select count(*) from parked) as noted
    union all
    select unnest(going), 'claimed', null from (select count(*) from parked) as noted;
end $$;
