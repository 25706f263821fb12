-- The comparison of what is noted with what there is: whatever the triggers missed is found here.

-- What the triggers, the tables and the functions that read them were like: whoever changes one of these may have changed
-- what was seen and noted.
create or replace function storage_cleanup.fingerprint() returns text
language sql stable security definer set search_path = ''
as $$
    select md5(string_agg(part, ' ' order by part))
    from (select format('trigger %s %s %s', oid, xmin, tgenabled) as part from pg_trigger
          where tgrelid in ('public.render_jobs'::regclass, 'public.user_assets'::regclass) and tgname like 'storage\_cleanup\_%'
          union all
          select format('table %s %s %s %s', oid, relfilenode, relrowsecurity, relforcerowsecurity) from pg_class where oid in ('public.render_jobs'::regclass, 'public.user_assets'::regclass)
          union all
          select format('column %s %s %s %s', attrelid, attname, atttypid, attisdropped) from pg_attribute
          where attrelid in ('public.render_jobs'::regclass, 'public.user_assets'::regclass) and attnum > 0
          union all
          select format('function %s', md5(pg_get_functiondef(oid))) from pg_proc
          where pronamespace = 'storage_cleanup'::regnamespace
            and proname in ('object_key', 'percent_decoded', 'readings', 'paths_in', 'read_part', 'all_of', 'hash', 'bare', 'job_ids_in', 'said_by', 'meant_in', 'meant_by')
          union all
          select format('child %s %s', inhrelid, inhparent) from pg_inherits
          where inhparent in ('public.render_jobs'::regclass, 'public.user_assets'::regclass)
             or inhrelid in ('public.render_jobs'::regclass, 'public.user_assets'::regclass)) as parts
$$;

-- The assets and jobs of which something else is noted than they say. Most often there are none.
create or replace function storage_cleanup.differing_assets() returns setof text
language sql stable security definer set search_path = '' set work_mem = '64MB'
as $$
    select distinct source
    from (select array_agg(source) as sources, array_agg(fields) as assets
          from (select *, row_number() over () / 2000 as slice from storage_cleanup.asset()) as asset
          group by slice) as slices
    cross join lateral (
        ((select source, job::text, is_save from storage_cleanup.said_by(sources, assets))
         except (select source, id::text, is_save from storage_cleanup.mention where source = any (sources)))
        union all
        ((select source, id::text, is_save from storage_cleanup.mention where source = any (sources))
         except (select source, job::text, is_save from storage_cleanup.said_by(sources, assets)))
        union all
        ((select source, object::text, null::boolean from storage_cleanup.meant_by(sources, assets))
         except (select source, object::text, null::boolean from storage_cleanup.reference where source = any (sources) and job_id is null))
        union all
        ((select source, object::text, null::boolean from storage_cleanup.reference where source = any (sources) and job_id is null)
         except (select source, object::text, null::boolean from storage_cleanup.meant_by(sources, assets)))) as differing
$$;

create or replace function storage_cleanup.differing_jobs() returns setof uuid
language sql stable security definer set search_path = '' set work_mem = '64MB'
as $$
    select distinct job_id
    from (select coalesce(wanted.job_id, holder.job_id) as job_id
          from (select distinct id as job_id, storage_cleanup.hash(unnest(storage_cleanup.readings(storage_cleanup.read_part(output_url)))) as object
                from storage_cleanup.job()) as wanted
          full join storage_cleanup.holder using (job_id, object)
          where wanted.job_id is null or holder.job_id is null) as differing
$$;

-- Compares what is noted with everything that there is: what the triggers missed (they were off, or a table was truncated)
-- is noted now. Returns how many jobs it found. Nobody has seen these complete; `seen_at` is the earliest from which their
-- age may count. Of rows that somebody holds, and may be writing, nothing is taken away: that is left to their own trigger.
-- But what they say is noted, for whoever holds them may leave them as they are.
create or replace function storage_cleanup.compare(seen_at timestamptz) returns bigint
language plpgsql security definer set search_path = '' set work_mem = '64MB'
as $$
#variable_conflict use_variable
declare
    now_like  constant text := storage_cleanup.fingerprint();
    of_assets constant oid := 'public.user_assets'::regclass;
    differing text[];
    jobs      uuid[];
    objects   bigint[];
    found     bigint;
begin
    perform storage_cleanup.forget_jobs(array(
        select distinct job_id from storage_cleanup.holder where not exists (select from storage_cleanup.job() where id = job_id)));
    jobs := array(select storage_cleanup.differing_jobs());
    for i in 1 .. cardinality(jobs) by 5000 loop
        perform storage_cleanup.note_holders(array_agg(id), array_agg(storage_cleanup.read_part(output_url)), 'change')
        from (select job.id, job.output_url::text from public.render_jobs as job
              where job.id = any (jobs[i : i + 4999]) for share skip locked) as job;
        perform storage_cleanup.note_holders(array_agg(id), array_agg(storage_cleanup.read_part(output_url)), 'add')
        from storage_cleanup.job() where id = any (jobs[i : i + 4999]);
    end loop;

    -- In one statement: an asset that is inserted again after the look, with the same id, keeps what it says then.
    with noted as materialized (
        select source from storage_cleanup.mention union select source from storage_cleanup.reference
    ),
    gone as materialized (
        select source from noted
        where starts_with(source, of_assets || ':')
          and source not in (select asset.source from storage_cleanup.asset() as asset)
    ),
    unsaid as (delete from storage_cleanup.mention where source in (select source from gone) returning id),
    unneeded as (delete from storage_cleanup.reference where source in (select source from gone) returning object)
    select array(select id from unsaid), array(select object from unneeded) into jobs, objects;
    perform storage_cleanup.let_go(jobs, objects);
    differing := array(select storage_cleanup.differing_assets());
    for i in 1 .. cardinality(differing) by 5000 loop
        perform storage_cleanup.note_assets(array_agg(source), array_agg(fields), 'change', false)
        from (select storage_cleanup.source(of_assets, asset.id::text) as source, to_jsonb(asset.*) as fields from public.user_assets as asset
              where storage_cleanup.source(of_assets, asset.id::text) = any (differing[i : i + 4999]) for share skip locked) as asset;
        perform storage_cleanup.note_assets(array_agg(source), array_agg(fields), 'add', false)
        from storage_cleanup.asset() where source = any (differing[i : i + 4999]);
    end loop;
    insert into storage_cleanup.reference (source, object, job_id)
    select distinct source, object, job_id from storage_cleanup.mention join storage_cleanup.holder on job_id = id
    where not exists (select from storage_cleanup.reference as known
                      where known.source = mention.source and known.object = holder.object and known.job_id = holder.job_id);

    insert into storage_cleanup.candidate (job_id, since, completed_at, has_file)
    select id, greatest(created, seen_at), greatest(created, seen_at), storage_cleanup.has_file(output_url)
    from storage_cleanup.job() as job, storage_cleanup.created(created_at) as created
    where status = 'completed'
      and not exists (select from storage_cleanup.mention where mention.id = job.id)
      and not exists (select from storage_cleanup.candidate where job_id = job.id)
      and not exists (select from storage_cleanup.deletion where job_id = job.id and state <> 'released')
    on conflict do nothing;
    get diagnostics found = row_count;
    update storage_cleanup.comparison set last_at = clock_timestamp(), fingerprint = now_like;
    return found;
end $$;

-- Compares once a day, and whenever the triggers or the tables have changed; NULL when it isn't time.
create or replace function storage_cleanup.compare_if_due() returns bigint
language plpgsql security definer set search_path = ''
as $$
begin
    if not exists (select from storage_cleanup.usage where day = (now() at time zone 'UTC')::date) then
        perform storage_cleanup.remember_usage();
    end if;
    return (select storage_cleanup.compare(now()) from storage_cleanup.comparison
            where last_at is null or last_at < now() - interval '1 day' or fingerprint is distinct from storage_cleanup.fingerprint());
end $$;
