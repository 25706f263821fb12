-- The candidates. Kept by triggers, so that a cycle costs what is new and not what has been.

create or replace function storage_cleanup.has_file(output_url text) returns boolean
language sql immutable parallel safe
return case when octet_length(output_url) > 8192 then true else coalesce(btrim(output_url), '') <> '' end;

-- A render completes: it is worth a look once that is long enough ago. What counts is when it was seen here, with the URL
-- that it has now: the row may be much older than its output.
create or replace function storage_cleanup.track_render() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set plan_cache_mode = force_generic_plan
as $$
declare
    is_completed    boolean;
    is_other_url    boolean;
    is_other_status boolean := true;
    this_job        uuid := new.id;
    with_file       boolean;
    new_object_key  text;
    seen_at         timestamptz;
begin
    if tg_op = 'INSERT' then
        select new.status = 'completed', new.output_url is not null into is_completed, is_other_url
        where not exists (select from public.render_jobs where false);
    else
        -- Long URLs are told apart by their length alone: comparing them would mean to read them.
        select new.status = 'completed', new.status is distinct from old.status,
               octet_length(new.output_url) is distinct from octet_length(old.output_url)
               or case when octet_length(new.output_url) <= 8192 then new.output_url <> old.output_url else false end
        into is_completed, is_other_status, is_other_url
        where not exists (select from public.render_jobs where false);
    end if;
    is_completed := coalesce(is_completed, false) and (is_other_status or is_other_url);
    if not (is_completed or is_other_url) then
        return null;
    end if;
    select storage_cleanup.has_file(new.output_url), storage_cleanup.object_key(new.output_url), new.created_at
    into with_file, new_object_key, seen_at
    where not exists (select from public.render_jobs where false);
    if is_other_url and with_file then
        -- A claim covers all jobs of its object. This one joins them, so it waits for a claim and holds off the next.
        perform from public.render_jobs
        where storage_cleanup.object_key(output_url) = new_object_key and id <> this_job
        order by id for key share;
        -- A saved job must not move to a file that is being removed. A new job may: nobody can save it then.
        if found and tg_op = 'UPDATE'
           and exists (select from storage_cleanup.deletion
                       where state in ('claimed', 'file_deleted') and deletion.job_id <> this_job
                         and bucket_id || '/' || object_name = new_object_key)
           and exists (select storage_cleanup.saved_among(array[this_job])) then
            raise exception using
                errcode = 'foreign_key_violation',
                message = format('Render job %s is saved, and the file that it is moved to is being removed.', this_job),
                schema = 'public', table = 'render_jobs', constraint = 'storage_cleanup_guard';
        end if;
    end if;
    if is_completed then
        seen_at := greatest(seen_at, clock_timestamp());
        insert into storage_cleanup.candidate (job_id, since, completed_at, has_file)
        values (this_job, seen_at, seen_at, with_file)
        on conflict (job_id) do update
            set since = seen_at, completed_at = seen_at, has_file = excluded.has_file, reason = null;
    end if;
    return null;
end $$;

-- An asset is deleted, or names another job: the job that it named is worth a look again. One that is no candidate any more
-- was old enough when it was found saved.
create or replace function storage_cleanup.track_unsave() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set plan_cache_mode = force_generic_plan
as $$
declare
    named text;
    still text;
begin
    if tg_op = 'DELETE' then
        select old.metadata ->> 'render_job_id' into named where not exists (select from public.user_assets where false);
    else
        select old.metadata ->> 'render_job_id', new.metadata ->> 'render_job_id' into named, still
        where not exists (select from public.user_assets where false);
    end if;
    if named is null or named = still then
        return null;
    end if;
    insert into storage_cleanup.candidate (job_id, since, completed_at, has_file)
    select id, storage_cleanup.created(created_at), storage_cleanup.created(created_at), storage_cleanup.has_file(output_url)
    from public.render_jobs
    where id = any (storage_cleanup.job_ids_in(named)) and status = 'completed'
    order by id for key share       -- waits for a claim that still saw it saved, and is about to forget it
    on conflict do nothing;
    return null;
end $$;

-- A date that somebody else wrote, as one that can be worked with: clients can't read some, such as -infinity.
create or replace function storage_cleanup.created(created_at timestamptz) returns timestamptz
language sql stable parallel safe
return greatest(coalesce(created_at, now()), 'epoch');

-- The next page of candidates in order of age, after the last one of the page before. With a plan: its jobs, in order of
-- id. A URL of more than 8192 bytes isn't handed out: no object needs one, and a page of them could fill a client's memory.
-- `own_share`: only those that fall to this run while several are at work, so that they don't get in each other's way.
create or replace function storage_cleanup.due(
    this_run uuid, with_file boolean, max_age interval, after_since timestamptz, after_job uuid, page_size integer,
    own_share boolean, plan uuid)
returns table (job_id uuid, since timestamptz, output_url text, too_long boolean, gone boolean)
language plpgsql stable security definer set search_path = '' set enable_seqscan = off
as $$
declare
    runs integer;
    mine integer;
begin
    perform storage_cleanup.assert_age(max_age);
    if plan is not null then
        return query
        select page.job_id, 'epoch'::timestamptz, case when octet_length(job.output_url) <= 8192 then job.output_url::text end,
               coalesce(octet_length(job.output_url) > 8192, false), job.id is null
        from storage_cleanup.plan_job as page
        left join public.render_jobs as job on job.id = page.job_id
        where run_id = plan and page.job_id > after_job and has_file = with_file
        order by page.job_id limit page_size;
        return;
    end if;
    select count(*), count(*) filter (where id < this_run) into runs, mine
    from storage_cleanup.run
    where status = 'running' and not dry_run and heartbeat_at > clock_timestamp() - interval '2 minutes';
    return query
    select page.job_id, page.since, case when octet_length(job.output_url) <= 8192 then job.output_url::text end,
           coalesce(octet_length(job.output_url) > 8192, false), job.id is null
    from (select candidate.job_id, candidate.since from storage_cleanup.candidate
          where has_file = with_file and candidate.since < now() - max_age
            and (candidate.since, candidate.job_id) > (after_since, after_job)
            and (runs < 2 or not own_share or (uuid_hash(candidate.job_id) & 65535) % runs = mine)
          order by candidate.since, candidate.job_id limit page_size) as page
    left join public.render_jobs as job on job.id = page.job_id
    order by page.since, page.job_id;
end $$;

-- Remembers why candidates were kept, so that the next cycle need not look at them again.
-- What has been decided for good leaves; what may change waits an hour; what was only busy stays where it is.
create or replace function storage_cleanup.park(jobs uuid[], reasons text[], max_age interval) returns void
language sql security definer set search_path = ''
as $$
    with verdict as (select * from unnest(jobs, reasons) as verdict (job_id, reason)),
    gone as (
        delete from storage_cleanup.candidate
        where job_id in (
            select job_id from storage_cleanup.candidate join verdict using (job_id)
            where verdict.reason in ('claimed', 'already_missing', 'saved', 'job_gone', 'job_not_completed', 'already_claimed')
              -- One that is saved while it is young may be deleted by its user while it is: its moment is still needed.
              and (verdict.reason <> 'saved' or completed_at < now() - max_age)
            for update of candidate skip locked)
    )
    update storage_cleanup.candidate
    set since = now() + interval '1 hour' - max_age, reason = verdict.reason
    from verdict
    where candidate.job_id = verdict.job_id
      and candidate.job_id in (
          select job_id from storage_cleanup.candidate join verdict using (job_id)
          where verdict.reason not in ('claimed', 'already_missing', 'saved', 'job_gone', 'job_not_completed', 'already_claimed',
                                       'locked', 'job_changed', 'not_in_plan')
          for update of candidate skip locked)
$$;

-- Finds what the triggers missed (they were off, or a table was truncated) by reading everything: once a day, not a cycle.
-- Nobody has seen these complete; `seen_at` is the earliest from which their age may count.
create or replace function storage_cleanup.reconcile(seen_at timestamptz) returns bigint
language plpgsql security definer set search_path = ''
as $$
declare
    found bigint;
begin
    perform storage_cleanup.assert_trust();
    insert into storage_cleanup.candidate (job_id, since, completed_at, has_file)
    select id, greatest(created, seen_at), greatest(created, seen_at), storage_cleanup.has_file(output_url)
    from public.render_jobs as job, storage_cleanup.created(created_at) as created
    where status = 'completed'
      and not exists (select from public.user_assets where metadata ->> 'render_job_id' = job.id::text)
      and not exists (select from public.user_assets, unnest(storage_cleanup.job_ids_in(metadata ->> 'render_job_id')) as named
                      where not storage_cleanup.is_plain_job_id(metadata ->> 'render_job_id') and named = job.id)
      and not exists (select from storage_cleanup.candidate where job_id = job.id)
      and not exists (select from storage_cleanup.deletion
                      where job_id = job.id and state <> 'released')
    on conflict do nothing;
    get diagnostics found = row_count;
    return found;
end $$;

create or replace function storage_cleanup.reconcile_if_due() returns bigint
language plpgsql security definer set search_path = ''
as $$
begin
    if not exists (select from storage_cleanup.usage where day = (now() at time zone 'UTC')::date) then
        perform storage_cleanup.remember_usage();
    end if;
    update storage_cleanup.reconciliation set last_at = clock_timestamp() where last_at < now() - interval '1 day';
    return case when found then storage_cleanup.reconcile(now()) end;
end $$;
