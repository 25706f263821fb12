-- Health. What the function health asks; all of it only reads. Each reads its tables once, however long they are.

-- What lies in Storage, by bucket; our own holds an object for a moment only.
create or replace function storage_cleanup.stored() returns table (bucket_id text, objects bigint, bytes bigint)
language sql stable security definer set search_path = ''
as $$
    select bucket.id, count(stored.id),
           storage_cleanup.total_size(sum(storage_cleanup.size_of(stored.metadata)))
    from storage.buckets as bucket left join storage.objects as stored on stored.bucket_id = bucket.id
    where bucket.id <> 'storage-cleanup'
    group by bucket.id
$$;

-- Remembers what lies in Storage today; a cycle calls it once a day. The trend of a report is made of these.
create or replace function storage_cleanup.remember_usage() returns void
language sql security definer set search_path = ''
as $$
    insert into storage_cleanup.usage (day, bucket_id, objects, bytes)
    select (now() at time zone 'UTC')::date, bucket_id, objects, bytes from storage_cleanup.stored()
    on conflict do nothing
$$;

-- The jobs that assets name, however they spell it.
create or replace function storage_cleanup.saves() returns table (asset_id text, job_id uuid)
language sql stable security definer set search_path = ''
as $$
    select split_part(source, ':', 2), id from storage_cleanup.mention where is_save
$$;

-- Orphans that a cycle should have taken by now, by the day of their render: candidates that nobody saved, and claims
-- that nobody finished. What a cycle has looked at and kept is no candidate of this age, for it comes back in an hour.
create or replace function storage_cleanup.orphans(max_age interval, grace interval, unsaved_grace interval)
returns table (day date, orphans bigint)
language sql stable security definer set search_path = ''
as $$
    with waiting as (
        select job_id from storage_cleanup.candidate
        where since < now() - max_age - grace and (unsaved_at is null or unsaved_at < now() - unsaved_grace - grace)
          and not exists (select from storage_cleanup.mention where id = candidate.job_id)
        union
        select job_id from storage_cleanup.deletion
        where state in ('claimed', 'file_deleted') and updated_at < now() - grace
    )
    select case when created_at between 'epoch' and '9999-12-31' then (created_at at time zone 'UTC')::date end, count(*)
    from waiting left join storage_cleanup.job() as job on job.id = job_id
    group by 1 order by 1
$$;

-- Completed jobs since then, saved and not saved.
create or replace function storage_cleanup.completed(since timestamptz) returns table (saved bigint, not_saved bigint)
language sql stable security definer set search_path = ''
as $$
    select count(*) filter (where is_saved), count(*) filter (where not is_saved)
    from (select exists (select from storage_cleanup.mention where mention.id = job.id) as is_saved
          from storage_cleanup.job() as job where status = 'completed' and created_at >= since) as recent
$$;

-- Assets by type and day since then.
create or replace function storage_cleanup.assets(since timestamptz)
returns table (day date, asset_type text, assets bigint, bytes bigint)
language sql stable security definer set search_path = ''
as $$
    select (asset.created_at at time zone 'UTC')::date, coalesce(asset.asset_type::text, 'unknown'), count(*),
           storage_cleanup.total_size(sum(storage_cleanup.size_of(jsonb_build_object('size', asset.file_size))))
    from public.user_assets as asset where asset.created_at >= assets.since and asset.created_at < '9999-12-31'
    group by 1, 2 order by 1, 2
$$;

-- Integrity both ways, in one pass. One row a finding, with up to three examples:
--   saved_job_missing      an asset names a job that doesn't exist; `removed` counts those that this system removed
--   saved_file_missing     an asset names a job whose file isn't in its bucket, or needs an object that was removed; `removed`
--                          counts what this system removed, for whichever job, as far as its ledger reaches
--   row_without_file       nobody saved the completed job, it is older than max_age and grace, and its file is gone
--   object_unknown         an object of that age in a listed bucket that no job and no asset points at
--   url_not_understood     the URL of a completed job is another project's, or names no object that could exist
--   url_in_other_bucket    the URL of a completed job names a bucket that isn't listed
create or replace function storage_cleanup.integrity(origins text[], listed text[], max_age interval, grace interval)
returns table (finding text, found bigint, removed bigint, bytes bigint, examples text[])
language sql stable security definer set search_path = '' set work_mem = '64MB'
as $$
    with save as materialized (
        select job_id, min(asset_id) as asset from storage_cleanup.saves() group by job_id
    ),
    job as materialized (       -- so that each URL is read once
        select id, status, storage_cleanup.object_key(output_url) as key,
               greatest(created_at, (select completed_at from storage_cleanup.candidate where job_id = id)) as completed_at,
               not starts_with(output_url, origins[1] || '/') and output_url ~ '^\s*([a-zA-Z][a-zA-Z0-9+.-]*:)?//' and not exists (
                   select from unnest(origins) as origin
                   where starts_with(lower(ltrim(left(output_url, 300), E' \t\n\r\f\x0B')), origin || '/')) as is_foreign
        from (select id, status, created_at, left(output_url, 8192) as output_url
              from storage_cleanup.job() where storage_cleanup.has_file(output_url)) as job
    ),
    placed as (                 -- both ways at once: jobs with or without their object, objects without a job
        select job.*, stored.id as object_id, coalesce(job.key, stored.key) as place
        from job full join (select object.id, object.bucket_id || '/' || object.name as key from storage.objects as object) as stored on stored.key = job.key
    ),
    judged as (
        select placed.id, save.asset, ledger.state, case
            when is_foreign or object_id is null and (bucket.id is null or strpos(key, '/') = length(key)
                                                      or key ~ '[^A-Za-z0-9_/!.*''()&$@=;:+,? -]|(^|/)[.]{1,2}(/|$)')
                then case when placed.status = 'completed' then 'url_not_understood' end
            when object_id is null and save.asset is not null then 'saved_file_missing'
            when placed.status is distinct from 'completed' then null
            when bucket.id <> all (listed) then 'url_in_other_bucket'
            when object_id is null and placed.completed_at < now() - max_age - grace
                 and (state in ('claimed', 'file_deleted') and ledger.updated_at > now() - grace) is not true
                then 'row_without_file' end as finding
        from placed
        left join save on save.job_id = placed.id
        left join storage.buckets as bucket on bucket.id = split_part(key, '/', 1) and strpos(key, '/') > 0
        left join lateral (
            select state, updated_at from storage_cleanup.deletion as known
            where known.job_id = placed.id and known.state <> 'released' order by known.id desc limit 1) as ledger on true
        where placed.id is not null
    ),
    removed as (                -- what assets need, was removed by this system, and isn't there; missing jobs have a finding of their own
        select source
        from storage_cleanup.deletion as ledger join storage_cleanup.reference on reference.object = ledger.object
        where ledger.state in ('claimed', 'file_deleted', 'done')
          and (reference.job_id is null or exists (select from storage_cleanup.job() as job where job.id = reference.job_id))
          and not exists (select from storage.objects as stored
                          where stored.bucket_id = ledger.bucket_id and stored.name = ledger.object_name)
    ),
    without_file as (
        select split_part(source, ':', 2) as asset, true as is_removed from removed
        union all
        select split_part(source, ':', 2), state in ('claimed', 'file_deleted', 'done')
        from judged join storage_cleanup.mention on mention.id = judged.id and is_save where finding = 'saved_file_missing'
    ),
    stranger as (
        select place, storage_cleanup.size_of(stored.metadata) as size
        from placed join storage.objects as stored on stored.id = object_id
        where placed.id is null and stored.bucket_id = any (listed)
          and greatest(stored.created_at, stored.updated_at) < now() - max_age - grace
          and not exists (select from storage_cleanup.reference
                          where object in (storage_cleanup.hash(place), storage_cleanup.hash(storage_cleanup.bare(place))))
    )
    select 'saved_job_missing', count(*), count(*) filter (where exists (
               select from storage_cleanup.deletion as known where known.job_id = save.job_id and known.state = 'done')), 0::bigint, (array_agg(asset))[:3]
    from save where not exists (select from storage_cleanup.job() as job where job.id = save.job_id)
    union all
    select 'saved_file_missing', count(distinct asset), count(distinct asset) filter (where is_removed), 0,
           (array_agg(distinct asset order by asset))[:3]
    from without_file
    union all
    select finding, count(*), 0, 0, (array_agg(coalesce(asset, id::text)))[:3]
    from judged where finding <> 'saved_file_missing' group by finding
    union all
    select 'object_unknown', count(*), 0, storage_cleanup.total_size(sum(size)), (array_agg(place))[:3] from stranger
$$;

-- Bytes of orphans by the month (UTC) in which they were claimed: this one and the last.
create or replace function storage_cleanup.orphan_bytes() returns table (this_month bigint, last_month bigint)
language sql stable security definer set search_path = ''
as $$
    select storage_cleanup.total_size(sum(bytes) filter (where claimed_at >= first)),
           storage_cleanup.total_size(sum(bytes) filter (where claimed_at < first))
    from storage_cleanup.deletion, (select date_trunc('month', now(), 'UTC') as first) as month
    where state in ('claimed', 'file_deleted', 'done') and claimed_at >= first - interval '1 month'
$$;

-- What must be there for cycles to be safe and fast; `used` counts scans since the server's statistics began.
create or replace function storage_cleanup.index_use() returns table (name text, is_valid boolean, used bigint)
language sql stable security definer set search_path = ''
as $$
    select wanted.name, wanted.fault is null, coalesce(idx_scan, 0)
    from storage_cleanup.index_state() as wanted
    left join pg_stat_user_indexes on indexrelid = to_regclass(format('public.%I', wanted.name))
    order by wanted.name
$$;

-- Foreign keys that reference render_jobs and have no index: their whole table is read for every row that is deleted.
create or replace function storage_cleanup.foreign_keys_without_index() returns setof text
language sql stable security definer set search_path = ''
as $$
    select format('%s (%s)', conrelid::regclass, (
               select string_agg(attname, ', ' order by place)
               from unnest(conkey) with ordinality as part (number, place) join pg_attribute on attrelid = conrelid and attnum = number))
    from pg_constraint
    where contype = 'f' and confrelid = 'public.render_jobs'::regclass and conparentid = 0
      and not exists (select from pg_index
                      where indrelid = conrelid and indisvalid and indpred is null
                        and (indkey::smallint[])[0:cardinality(conkey) - 1] @> conkey)
    order by 1
$$;

-- Sessions that wait for a lock while they work with one of the two tables, and transactions on them older than five minutes.
create or replace function storage_cleanup.lock_trouble() returns table (waiting bigint, long_running bigint)
language sql stable security definer set search_path = ''
as $$
    select count(*) filter (where wait_event_type = 'Lock'), count(*) filter (where xact_start < clock_timestamp() - interval '5 minutes')
    from pg_stat_activity
    where pid <> pg_backend_pid()
      and pid in (select pid from pg_locks where relation in ('public.render_jobs'::regclass, 'public.user_assets'::regclass))
$$;
