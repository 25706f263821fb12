-- What jobs point at, and which of them are worth a look. Kept by triggers, so that a cycle costs what is new and not what
-- has been.

create or replace function storage_cleanup.has_file(output_url text) returns boolean
language sql immutable parallel safe
return case when octet_length(output_url) > 8192 then true else coalesce(btrim(output_url), '') <> '' end;

-- As much of a URL as is read. Long ones are told apart by their length: comparing them would mean to read them.
create or replace function storage_cleanup.read_part(output_url text) returns text
language sql immutable parallel safe
return case when octet_length(output_url) > 8192 then substr(output_url, 1, 8192) || ' ' || octet_length(output_url) else output_url end;

-- Notes what these jobs point at now; `mode` is that of note_assets. What an asset needed through a job, it goes on to need
-- when the job points elsewhere.
create or replace function storage_cleanup.note_holders(
    jobs uuid[], urls text[], mode text, out taken bigint[], out former bigint[], out movers uuid[])
language plpgsql
as $$
begin
    if mode = 'new' and exists (select from storage_cleanup.holder where job_id = any (jobs)) then
        -- Of jobs that were there before. A comparison may just be forgetting that.
        perform from storage_cleanup.holder where job_id = any (jobs) for key share;
        mode := 'change';
    end if;
    with wanted as materialized (
        select distinct job, storage_cleanup.hash(unnest(storage_cleanup.readings(url))) as object
        from unnest(jobs, urls) as written (job, url)
    ),
    stale as (
        delete from storage_cleanup.holder
        where mode = 'change' and job_id = any (jobs)
          and not exists (select from wanted where job = job_id and wanted.object = holder.object)
        returning job_id, object
    ),
    added as (
        insert into storage_cleanup.holder (job_id, object)
        select job, object from wanted
        where mode = 'new' or not exists (select from storage_cleanup.holder as known where known.job_id = job and known.object = wanted.object)
        returning job_id, object
    ),
    needed as (
        insert into storage_cleanup.reference (source, object, job_id)
        select distinct source, object, job_id
        from (select * from stale union all select * from added) as pointed join storage_cleanup.mention on id = job_id
        where not exists (select from storage_cleanup.reference as known
                          where known.source = mention.source and known.object = pointed.object and known.job_id = pointed.job_id)
    )
    select array(select object from added), array(select object from stale), array(select job_id from added)
    into taken, former, movers;
end $$;

-- Notes what these jobs point at, and which of them have completed.
create or replace function storage_cleanup.note_jobs(jobs uuid[], urls text[], completed boolean[], mode text) returns void
language plpgsql
as $$
declare
    seen_at   constant timestamptz := clock_timestamp();
    taken     bigint[];
    former    bigint[];
    movers    uuid[];
begin
    select * into taken, former, movers from storage_cleanup.note_holders(jobs, urls, mode);
    if taken <> '{}' or former <> '{}' then
        perform storage_cleanup.hold('{}', taken || former);
        -- A saved job must not move to a file that is being removed. One that isn't saved may: nobody can save it then.
        if exists (select from storage_cleanup.deletion where state in ('claimed', 'file_deleted') and object = any (taken)) then
            perform storage_cleanup.refuse_if_claimed('{}', array(
                select object from storage_cleanup.holder
                where job_id in (select storage_cleanup.saved_among(movers)) and object = any (taken)), '{}');
        end if;
    end if;

    insert into storage_cleanup.candidate (job_id, since, completed_at, has_file)
    select job, seen_at, seen_at, storage_cleanup.has_file(url) from unnest(jobs, urls, completed) as written (job, url, is_completed)
    where is_completed
    on conflict (job_id) do update
        set since = seen_at, completed_at = seen_at, has_file = excluded.has_file, reason = null, out_of_scope = null;
    if mode = 'change' then
        delete from storage_cleanup.candidate
        where job_id in (select job from unnest(jobs, completed) as written (job, is_completed) where not is_completed);
    end if;
end $$;

-- Forgets jobs that are gone, and are not there again; what assets needed through them, they go on to need.
create or replace function storage_cleanup.forget_jobs(jobs uuid[]) returns void
language sql
as $$
    with stale as (
        delete from storage_cleanup.holder
        where job_id = any (jobs) and not exists (select from storage_cleanup.job() where id = job_id) returning job_id, object
    ),
    forgotten as (
        delete from storage_cleanup.candidate
        where job_id = any (jobs) and not exists (select from storage_cleanup.job() where id = job_id)
    )
    insert into storage_cleanup.reference (source, object, job_id)
    select distinct source, object, job_id from stale join storage_cleanup.mention on id = job_id
    where not exists (select from storage_cleanup.reference as known
                      where known.source = mention.source and known.object = stale.object and known.job_id = stale.job_id)
$$;

-- What is noted is what the table says now: a statement within the statement may have written the row again meanwhile, and has
-- had its own triggers before these. A row that isn't to be seen any more counts as it was written.
create or replace function storage_cleanup.jobs_written() returns trigger
language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_variable
declare
    jobs      uuid[];
    urls      text[];
    completed boolean[];
    gone      uuid[];
begin
    if tg_op = 'INSERT' then
        select array_agg(written.id),
               array_agg(storage_cleanup.read_part(case when job.id is null then written.output_url else job.output_url end)),
               array_agg(coalesce(case when job.id is null then written.status::text else job.status end = 'completed', false))
        into jobs, urls, completed
        from new_rows as written
        left join lateral (select * from storage_cleanup.job() as job where job.id = written.id limit 1) as job on true
        where written.status = 'completed' or written.output_url is not null;
    else        -- old and new are never joined: a plan for one row would be kept for ten thousand
        select array_agg(changed.id), array_agg(case when job.id is null then changed.url else storage_cleanup.read_part(job.output_url) end),
               array_agg(case when job.id is null then changed.is_completed else coalesce(job.status = 'completed', false) end)
        into jobs, urls, completed
        from (select written.id, storage_cleanup.read_part(written.output_url) as url, coalesce(written.status = 'completed', false) as is_completed
              from new_rows as written
              except select former.id, storage_cleanup.read_part(former.output_url), coalesce(former.status = 'completed', false)
              from old_rows as former) as changed
        left join lateral (select * from storage_cleanup.job() as job where job.id = changed.id limit 1) as job on true;
        gone := array(select former.id from old_rows as former except select written.id from new_rows as written);
        if gone <> '{}' then
            perform storage_cleanup.forget_jobs(gone);
        end if;
    end if;
    if jobs is not null then
        perform storage_cleanup.note_jobs(jobs, urls, completed, case tg_op when 'INSERT' then 'new' else 'change' end);
    end if;
    return null;
end $$;

create or replace function storage_cleanup.jobs_gone() returns trigger
language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_variable
begin
    if tg_op = 'DELETE' then
        perform storage_cleanup.forget_jobs(array(select former.id from old_rows as former));
    else
        perform storage_cleanup.forget_jobs(array(
            select job_id from storage_cleanup.holder union select job_id from storage_cleanup.candidate));
    end if;
    return null;
end $$;

create or replace function storage_cleanup.job_applied() returns trigger
language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_variable
begin
    if tg_op = 'DELETE' or tg_op = 'UPDATE' and new.id is distinct from old.id then
        perform storage_cleanup.forget_jobs(array[old.id]);
    end if;
    if tg_op = 'INSERT' or tg_op = 'UPDATE'
       and (storage_cleanup.read_part(new.output_url), new.status = 'completed')
           is distinct from (storage_cleanup.read_part(old.output_url), old.status = 'completed') then
        perform storage_cleanup.note_jobs(
            array[new.id], array[storage_cleanup.read_part(case when job.id is null then new.output_url else job.output_url end)],
            array[coalesce(case when job.id is null then new.status::text else job.status end = 'completed', false)], 'change')
        from (select new.id) as written left join storage_cleanup.job() as job on job.id = written.id;
    end if;
    return null;
end $$;

-- A date that somebody else wrote, as one that can be worked with: clients can't read some, such as -infinity.
create or replace function storage_cleanup.created(created_at timestamptz) returns timestamptz
language sql stable parallel safe
return greatest(coalesce(created_at, now()), 'epoch');
