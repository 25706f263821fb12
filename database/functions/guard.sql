-- The guard. Whoever saves locks the job first (key share), whoever claims locks it first (for update): one of
--    them waits, and then sees what the other did. A save that comes too late is an error, never a broken asset.

-- The objects that a path of an asset may mean: it may come with its bucket, or without.
create or replace function storage_cleanup.object_keys_of(path text) returns text[]
language sql stable strict security definer set search_path = ''
as $$
    select array_agg(key)
    from (select storage_cleanup.object_key(path) as key
          union all
          select id || '/' || storage_cleanup.object_key(path) from storage.buckets) as meanings
$$;



-- What these columns of an asset hold; 8 kB of it, which is what object_key reads.
-- Any type, because a function of the table's own would keep the application from dropping it.
create or replace function storage_cleanup.paths_in(asset anyelement, names text[]) returns text[]
language plpgsql stable security definer set search_path = ''
as $$
declare
    fields jsonb;
    paths  text[];
begin
    if pg_column_size(asset) <= 65536 then
        fields := to_jsonb(asset);
        return array(select fields ->> name from unnest(names) with ordinality as wanted (name, place) order by place);
    end if;
    execute (select format('select array[%s]::text[]', string_agg(
                 case when attname is null then 'null' else format('left(($1).%I, 8192)', name) end, ', ' order by place))
             from unnest(names) with ordinality as wanted (name, place)
             left join pg_attribute on attrelid = 'public.user_assets'::regclass and attname = name and not attisdropped)
    into paths using asset;
    return paths;
end $$;

-- The triggers read the application's columns in statements that name its table (and nothing of it): for a session that is
-- open while a column gets another type, only such statements are planned anew. All others would go on failing in it.

-- The triggers' plans are generic: planning each statement anew cost four times as much as the statements themselves.
create or replace function storage_cleanup.guard_save() returns trigger
language plpgsql security definer set search_path = '' set enable_seqscan = off set plan_cache_mode = force_generic_plan
as $$
declare
    jobs    uuid[] := '{}';    -- the jobs that the asset names
    objects text[] := '{}';    -- the objects that it points at by a path of its own, and those of these jobs
    holders uuid[];            -- the jobs that a claim of these objects would be made for
    named   text;
    former  text;              -- what it named before
    paths   text[];
    before  text[] := '{}';
    taken   uuid;
begin
    if tg_op = 'INSERT' then
        select new.metadata ->> 'render_job_id' into named where not exists (select from public.user_assets where false);
    else
        select new.metadata ->> 'render_job_id', old.metadata ->> 'render_job_id' into named, former
        where not exists (select from public.user_assets where false);
    end if;
    if named is distinct from former then
        jobs := coalesce(storage_cleanup.job_ids_in(named), '{}');
    end if;
    if tg_nargs > 0 then
        paths := storage_cleanup.paths_in(new, tg_argv);
        if tg_op = 'UPDATE' then
            before := storage_cleanup.paths_in(old, tg_argv);
        end if;
        for i in 1 .. tg_nargs loop
            if paths[i] is distinct from before[i] then
                objects := objects || storage_cleanup.object_keys_of(paths[i]);
            end if;
        end loop;
    end if;
    if jobs = '{}' and objects = '{}' then
        return new;
    end if;

    -- Waits for a claim that is being made, and keeps the next one from being made until this save has ended.
    perform from public.render_jobs where id = any (jobs) order by id for key share;
    if objects <> '{}' then
        perform from public.render_jobs
        where storage_cleanup.object_key(output_url) = any (objects) order by id for key share;
    end if;

    -- A statement of its own, so it sees what was committed while the lock was waited for. Above read committed it
    -- would not; but a primary key does, and turns what can't be seen into a serialization failure.
    objects := objects || array(select storage_cleanup.object_key(output_url) from public.render_jobs
                                where id = any (jobs) and storage_cleanup.has_file(output_url));
    if current_setting('transaction_isolation') <> 'read committed' then
        holders := jobs || array(select id from public.render_jobs where storage_cleanup.object_key(output_url) = any (objects));
        insert into storage_cleanup.deletion (job_id) select distinct unnest(holders) order by 1 on conflict do nothing;
        delete from storage_cleanup.deletion where job_id = any (holders) and run_id is null;
    end if;
    select job_id into taken from storage_cleanup.deletion
    where job_id = any (jobs) and state <> 'released'
      and not (state = 'done' and exists (      -- the row has stayed, and has another file or never had one
          select from public.render_jobs as job
          where job.id = job_id and (object_name is null
                                     or storage_cleanup.object_key(job.output_url) <> bucket_id || '/' || object_name)))
    limit 1;
    if taken is null then
        select deletion.job_id into taken
        from storage_cleanup.deletion
        where state in ('claimed', 'file_deleted', 'done') and bucket_id || '/' || object_name = any (objects)
          and (state <> 'done' or not exists (select from storage.objects as stored
                                              where stored.bucket_id = deletion.bucket_id and stored.name = deletion.object_name))
        limit 1;
    end if;
    if taken is not null then
        raise exception using
            errcode = 'foreign_key_violation',
            message = format('The output of render job %s can no longer be saved: it was not saved in time and is being removed.', taken),
            hint = 'Render it again and save the new output.',
            schema = 'public', table = 'user_assets', constraint = 'storage_cleanup_guard';
    end if;
    return new;
end $$;
