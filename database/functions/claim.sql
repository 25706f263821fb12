-- Claims what may go of these jobs, each with the object that the parser has found in its URL, and says why the rest is
-- kept. Other jobs that may mean one of the objects keep it, for only the parser can tell what their URLs mean:
--   - one that could go as well is returned as 'unasked', with its URL, so that the caller may ask for it, too
--   - one whose URL is among `foreign_urls` names another host, by the parser's judgement. It is never claimed, and keeps
--     the object only while somebody saves it: a host that nobody has told us of may be this project's all the same
--
-- outcome 'claimed': the file may be removed now, and the job can't be saved any more; 'already_missing': there is no
-- such file; anything else is the reason to keep it. A dry run does all of this, and writes only its plan.
create or replace function storage_cleanup.claim(
    this_run uuid, jobs uuid[], keys text[], max_age interval, dry_run boolean, plan uuid, foreign_urls text[] default '{}')
returns table (job_id uuid, outcome text, bucket_id text, object_name text, bytes bigint, output_url text)
language plpgsql security definer set search_path = '' set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    locked    uuid[];
    saved     uuid[];
    on_assets text[];
begin
    perform storage_cleanup.assert_trust();
    perform storage_cleanup.assert_age(max_age);
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'claims are made at read committed, or the second look would see no more than the first';
    end if;
    perform storage_cleanup.beat(this_run);

    -- First the locks …
    locked := array(
        select job.id
        from (select distinct unnest(keys) as key) as wanted
        join public.render_jobs as job on storage_cleanup.object_key(job.output_url) = wanted.key
        order by job.id
        for update of job skip locked);
    -- … and only then, in statements of their own, a look at who saved.
    saved := array(select storage_cleanup.saved_among(locked));
    on_assets := array(select storage_cleanup.on_assets(keys));

    return query
    with object as (
        select wanted.key, split_part(wanted.key, '/', 1) as bucket, substr(wanted.key, position('/' in wanted.key) + 1) as name,
               stored.id is not null as present,
               greatest(stored.created_at, stored.updated_at) as touched_at,
               storage_cleanup.size_of(stored.metadata) as size
        from (select distinct unnest(keys) as key) as wanted
        left join lateral (     -- one look into the unique index for each, whatever the planner thinks of the number
            select * from storage.objects as object
            where object.bucket_id = split_part(wanted.key, '/', 1)
              and object.name = substr(wanted.key, position('/' in wanted.key) + 1)
            limit 1) as stored on true
    ),
    holder as (     -- every job that points at one of the objects
        select job.id, object.key, job.output_url, candidate.completed_at,
               -- job.* and not job, which here is the ledger's column of that name
               case when octet_length(job.output_url) <= 8192 then storage_cleanup.without_long_values(to_jsonb(job.*)) end as job, case
            when lock.id is null then 'locked'
            when save.id is not null then 'saved'
            when asked.id is null and job.output_url = any (foreign_urls) then 'foreign_host'
            when asked.id is null and job.id = any (jobs) then 'job_changed'
            when job.status is distinct from 'completed' then 'job_not_completed'
            when ledger.state <> 'released'
                 and (ledger.state <> 'done'        -- done, and the row has stayed: it may have got another file since
                      or not present and ledger.bucket_id || '/' || ledger.object_name = object.key) then 'already_claimed'
            when octet_length(job.output_url) > 8192 then 'too_long'
            -- One that is no candidate hasn't been seen to complete: it waits until it is found (reconcile).
            when (greatest(job.created_at, candidate.completed_at) < now() - max_age and candidate.job_id is not null) is not true
                then 'job_too_young'
            when plan is not null and planned.job_id is null then 'not_in_plan'
            when asked.id is null then 'unasked'
            end as own_reason
        from object
        join public.render_jobs as job on storage_cleanup.object_key(job.output_url) = object.key
        left join unnest(locked) as lock (id) on lock.id = job.id
        left join unnest(saved) as save (id) on save.id = job.id
        left join unnest(jobs, keys) as asked (id, key) on asked.id = job.id and asked.key = object.key
        left join storage_cleanup.deletion as ledger on ledger.job_id = job.id
        left join storage_cleanup.candidate on candidate.job_id = job.id
        left join storage_cleanup.plan_job as planned on planned.run_id = plan and planned.job_id = job.id
    ),
    decided as (
        select holder.id, holder.job, holder.output_url, holder.completed_at, object.*, coalesce(own_reason, case
            when bool_or(own_reason = 'locked') over same_object then 'locked'
            when bool_or(own_reason not in ('already_claimed', 'foreign_host')) over same_object then 'shared_with_kept_job'
            when present and (touched_at < now() - max_age) is not true then 'file_too_young'
            when object.key = any (on_assets) then 'asset_points_at_file'
            when present then 'claimed'
            else 'already_missing' end) as outcome,
            bool_or(own_reason not in ('already_claimed', 'foreign_host', 'unasked')) over same_object is true as is_kept
        from holder join object using (key)
        window same_object as (partition by holder.key)
    ),
    ledgered as (
        insert into storage_cleanup.deletion as ledger (job_id, run_id, state, bucket_id, object_name, bytes, job, completed_at)
        select id, this_run, case outcome when 'claimed' then 'claimed' else 'file_deleted' end, bucket, name, size, decided.job,
               decided.completed_at
        from decided where outcome in ('claimed', 'already_missing') and not dry_run
        on conflict (job_id) do update
            set run_id = excluded.run_id, state = excluded.state, bucket_id = excluded.bucket_id,
                object_name = excluded.object_name, bytes = excluded.bytes, job = excluded.job, completed_at = excluded.completed_at,
                attempts = 0, last_error = null, attempted_at = null,
                claimed_at = clock_timestamp(), updated_at = clock_timestamp()
            where ledger.state in ('released', 'done')
        returning ledger.job_id
    ),
    planned as (
        insert into storage_cleanup.plan_job (run_id, job_id, has_file)
        select this_run, id, true from decided where outcome in ('claimed', 'already_missing') and dry_run
        on conflict do nothing
    ),
    parked as (
        select storage_cleanup.park(array_agg(id), array_agg(outcome), max_age) from decided
        where not dry_run and id = any (jobs)
    )
    select id, decided.outcome, bucket, name, size,
           case when decided.outcome = 'unasked' and octet_length(decided.output_url) <= 8192 then decided.output_url::text end
    from decided cross join (select count(*) from parked) as noted
    where id = any (jobs) or decided.outcome = 'unasked' and not is_kept
    union all
    select asked, 'job_changed', null, null, 0, null      -- its URL isn't what it was when the page was read
    from unnest(jobs) as asked
    where not exists (select from decided where id = asked);
end $$;
