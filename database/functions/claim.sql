-- Claims. What may go is decided in one place, which writes nothing: a dry run is that decision.

-- What becomes of these jobs, each with the object that the parser has found in its URL. Other jobs that may mean one of the
-- objects keep it, for only the parser can tell what their URLs mean:
--   - one that could go as well is returned as 'unasked', with its URL, so that the caller may ask for it, too
--   - one whose URL is among `foreign_urls` names another host, by the parser's judgement. It is never claimed, and keeps
--     the object only while somebody saves it: a host that nobody has told us of may be this project's all the same
--
-- outcome 'claimed': the file may go; 'already_missing': there is no such file; anything else is the reason to keep it.
-- `free` and `free_keys`: the jobs and objects whose locks this transaction has; NULL for all.
create or replace function storage_cleanup.decide(
    jobs uuid[], keys text[], foreign_urls text[], max_age interval, grace interval, owners_only boolean, keep_dependents boolean,
    plan uuid, free uuid[], free_keys text[])
returns table (job_id uuid, outcome text, bucket_id text, object_name text, bytes bigint, output_url text, completed_at timestamptz, version text)
language plpgsql stable security definer set search_path = '' set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    holding   uuid[];      -- every job that points at one of the objects
    crowded   text[];      -- objects that too many do
    saved     uuid[];
    needed    text[];
    dependent uuid[] := '{}';
begin
    with held as materialized (
        select key, holder.job_id as job, count(*) over (partition by key) > 1000 as is_crowded
        from (select distinct unnest(keys) as key) as wanted
        cross join lateral (
            select job_id from storage_cleanup.holder
            where object = any (array[storage_cleanup.hash(key), storage_cleanup.hash(storage_cleanup.bare(key))]) limit 1001) as holder
    )
    select array(select distinct job from held where not is_crowded), array(select distinct key from held where is_crowded)
    into holding, crowded;
    saved := array(select storage_cleanup.saved_among(holding));
    needed := array(select storage_cleanup.needed_among(keys));
    if keep_dependents then
        dependent := array(select storage_cleanup.dependent_among(holding));
    end if;

    return query
    with object as (
        select wanted.key, split_part(wanted.key, '/', 1) as bucket, substr(wanted.key, position('/' in wanted.key) + 1) as name,
               stored.id is not null as present, free_keys is null or wanted.key in (select unnest(free_keys)) as is_free,
               greatest(stored.created_at, stored.updated_at) as touched_at,
               storage_cleanup.size_of(stored.metadata) as size,
               storage_cleanup.version(stored.id, stored.version) as version,
               -- Whoever uploaded it; for what the service role did, whoever's folder it lies in.
               coalesce(stored.owner_id, stored.owner::text, (string_to_array(stored.name, '/'))[1]) as owner
        from (select distinct unnest(keys) as key) as wanted
        left join lateral (     -- one look into the unique index for each, whatever the planner thinks of the number
            select object.id, object.created_at, object.updated_at, object.metadata, object.version, object.owner_id, object.owner, object.name
            from storage.objects as object
            where object.bucket_id = split_part(wanted.key, '/', 1)
              and object.name = substr(wanted.key, position('/' in wanted.key) + 1)
            limit 1) as stored on true
    ),
    holder as materialized (     -- each reason is found once
        select job.id, object.key, job.output_url, candidate.completed_at, case
            when free is not null and job.id not in (select unnest(free)) then 'locked'
            when save.id is not null then 'saved'
            when asked.id is null and job.output_url = any (foreign_urls) then 'foreign_host'
            when asked.id is null and job.id = any (jobs) then 'job_changed'
            when asked.id is not null and storage_cleanup.object_key(job.output_url) is distinct from object.key then 'job_changed'
            when job.status is distinct from 'completed' then 'job_not_completed'
            when ledger.id is not null then 'already_claimed'
            when not present and exists (       -- done, and the row has stayed: it may have got another file since
                select from storage_cleanup.deletion as known
                where known.job_id = job.id and known.state = 'done' and known.bucket_id || '/' || known.object_name = object.key) then 'already_claimed'
            when octet_length(job.output_url) > 8192 then 'too_long'
            when exists (       -- only where it has several readings
                select from storage_cleanup.holder as other
                where other.job_id = job.id and other.object <> storage_cleanup.hash(object.key))
             and exists (
                select from unnest(storage_cleanup.readings(job.output_url)) as other
                join storage.objects as meant
                    on meant.bucket_id = split_part(other, '/', 1) and meant.name = substr(other, position('/' in other) + 1)
                where other <> object.key) then 'ambiguous_url'
            -- One that is no candidate hasn't been seen to complete: it waits until it is found (compare).
            when (greatest(job.created_at, candidate.completed_at) < now() - max_age and candidate.job_id is not null) is not true
                then 'job_too_young'
            when candidate.unsaved_at >= now() - grace
                 or exists (select from storage_cleanup.unsaved where unsaved.job_id = job.id and at >= now() - grace)
                then 'just_unsaved'
            when exists (select from storage_cleanup.reference where reference.object in (storage_cleanup.hash(storage_cleanup.all_of(job.user_id)), storage_cleanup.hash(storage_cleanup.all_of(null))))
                then 'asset_unread'
            when owners_only and present and job.user_id is distinct from object.owner then 'not_the_owners'
            when job.id = any (dependent) then 'has_dependents'
            when plan is not null and planned.job_id is null then 'not_in_plan'
            when asked.id is null then 'unasked'
            end as own_reason
        from object
        cross join lateral (
            select distinct job_id as id from storage_cleanup.holder
            where object.key <> all (crowded)
              and holder.object = any (array[storage_cleanup.hash(object.key), storage_cleanup.hash(storage_cleanup.bare(object.key))])) as held
        join storage_cleanup.job() as job on job.id = held.id
        left join unnest(saved) as save (id) on save.id = job.id
        left join unnest(jobs, keys) as asked (id, key) on asked.id = job.id and asked.key = object.key
        left join storage_cleanup.deletion as ledger on ledger.job_id = job.id and ledger.state in ('claimed', 'file_deleted')
        left join storage_cleanup.candidate on candidate.job_id = job.id
        left join storage_cleanup.plan_job as planned on planned.run_id = plan and planned.job_id = job.id
    ),
    decided as (
        select holder.id, holder.output_url, holder.completed_at, holder.id in (select unnest(jobs)) as is_asked, object.*, case
            when not object.is_free then 'locked'
            else coalesce(own_reason, case
                when bool_or(own_reason = 'locked') over same_object then 'locked'
                when bool_or(own_reason not in ('already_claimed', 'foreign_host', 'not_the_owners')) over same_object then 'shared_with_kept_job'
                when object.key = any (needed) then 'asset_points_at_file'
                when present and (touched_at < now() - max_age) is not true then 'file_too_young'
                when present then 'claimed'
                else 'already_missing' end) end as outcome,
            bool_or(own_reason not in ('already_claimed', 'foreign_host', 'not_the_owners', 'unasked')) over same_object is true as is_kept
        from holder join object using (key)
        window same_object as (partition by holder.key)
    )
    select id, decided.outcome, bucket, name, size,
           case when decided.outcome = 'unasked' and octet_length(decided.output_url) <= 8192 then decided.output_url end,
           decided.completed_at, decided.version
    from decided
    where is_asked or decided.outcome = 'unasked' and not is_kept
    union all
    select id, 'shared_by_many', null, null, 0, null, null, null from unnest(jobs, keys) as asked (id, key) where key = any (crowded)
    union all
    select id, 'job_changed', null, null, 0, null, null, null      -- its URL isn't what it was when the page was read
    from unnest(jobs, keys) as asked (id, key)
    where key <> all (crowded) and not exists (select from decided where decided.id = asked.id);
end $$;

-- What has to be so for any claim.
create or replace function storage_cleanup.assert_may_claim(this_run uuid, max_age interval) returns void
language plpgsql
as $$
begin
    perform storage_cleanup.assert_trust();
    perform storage_cleanup.assert_age(max_age);
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'claims are made at read committed, or the second look would see no more than the first';
    end if;
end $$;

-- Claims what may go of these jobs, and says why the rest is kept.
create or replace function storage_cleanup.claim(
    this_run uuid, jobs uuid[], keys text[], max_age interval, dry_run boolean, plan uuid, foreign_urls text[] default '{}',
    grace interval default '0', owners_only boolean default true, keep_dependents boolean default true)
returns table (job_id uuid, outcome text, bucket_id text, object_name text, bytes bigint, output_url text)
language plpgsql security definer set search_path = '' set enable_seqscan = off
as $$
#variable_conflict use_column
declare
    objects   bigint[];
    taken     integer[];
    free_keys text[];
    free      uuid[];
begin
    perform storage_cleanup.assert_may_claim(this_run, max_age);

    if not dry_run then
        -- First the objects' locks …
        objects := array(select storage_cleanup.hash(key) from unnest(keys) as key
                         union select storage_cleanup.hash(storage_cleanup.bare(key)) from unnest(keys) as key);
        taken := storage_cleanup.take(storage_cleanup.slots('{}', objects));
        free_keys := array(
            select key
            from (select distinct key, storage_cleanup.hash(key) & 8191 as slot, storage_cleanup.hash(storage_cleanup.bare(key)) & 8191 as bare_slot
                  from unnest(keys) as key) as wanted
            join unnest(taken) as own (slot) using (slot)
            join unnest(taken) as bare (bare_slot) using (bare_slot));
        -- … then those of the jobs that hold them, for none can be added now …
        free := storage_cleanup.take_jobs(storage_cleanup.holders_of(objects));
    end if;
    -- … and only then, in statements of their own, a look at who needs them.
    return query
    with decided as materialized (
        select * from storage_cleanup.decide(jobs, keys, foreign_urls, max_age, grace, owners_only, keep_dependents, plan, free, free_keys)
    ),
    ledgered as (
        insert into storage_cleanup.deletion
            (job_id, run_id, state, bucket_id, object_name, object, bare, version, bytes, job, completed_at, quiet_at)
        select decided.job_id, this_run, case outcome when 'claimed' then 'claimed' else 'file_deleted' end,
               decided.bucket_id, decided.object_name,
               storage_cleanup.hash(decided.bucket_id || '/' || decided.object_name), storage_cleanup.hash('*/' || decided.object_name),
               decided.version, decided.bytes, storage_cleanup.without_long_values(job.fields), decided.completed_at,
               case outcome when 'claimed' then storage_cleanup.quiet_at(clock_timestamp()) end
        from decided join storage_cleanup.job() as job on job.id = decided.job_id
        where outcome in ('claimed', 'already_missing') and not dry_run
    ),
    planned as (
        insert into storage_cleanup.plan_job (run_id, job_id, has_file)
        select this_run, decided.job_id, true from decided where outcome in ('claimed', 'already_missing') and dry_run
        on conflict do nothing
    ),
    parked as (
        select storage_cleanup.park(array_agg(decided.job_id), array_agg(outcome), max_age) from decided
        where outcome <> 'unasked' having not dry_run
    )
    select decided.job_id, decided.outcome, decided.bucket_id, decided.object_name, decided.bytes, decided.output_url
    from decided cross join (select count(*) from parked) as noted;
end $$;
