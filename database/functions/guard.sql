-- The guard: who writes an asset is told when it comes too late.

-- Refuses what names a job, or an object, that is being removed; and a job whose own file (`files`) has gone.
create or replace function storage_cleanup.refuse_if_claimed(jobs uuid[], objects bigint[], files bigint[]) returns void
language plpgsql
as $$
declare
    taken uuid;
begin
    select job_id into taken from storage_cleanup.deletion
    where job_id = any (jobs) and state <> 'released'
      and not (state = 'done' and exists (      -- the row has stayed, and has another file or never had one
          select from storage_cleanup.job() as job
          where job.id = job_id and (object_name is null
                                     or storage_cleanup.object_key(job.output_url) <> bucket_id || '/' || object_name)))
    limit 1;
    if taken is null then
        select job_id into taken
        from (select job_id from storage_cleanup.deletion
              where state in ('claimed', 'file_deleted') and object = any (objects)
              union all
              select job_id from storage_cleanup.deletion
              where state in ('claimed', 'file_deleted') and bare = any (objects)
              union all
              select job_id from storage_cleanup.deletion
              where state = 'done' and object = any (files)
                and not exists (select from storage.objects as stored
                                where stored.bucket_id = deletion.bucket_id and stored.name = deletion.object_name)) as claimed
        limit 1;
    end if;
    if taken is not null then
        raise exception using
            errcode = 'foreign_key_violation',
            message = format('The output of render job %s can no longer be saved: it was not saved in time and is being removed.', taken),
            hint = 'Render it again and save the new output.',
            schema = 'public', table = 'user_assets', constraint = 'storage_cleanup_guard';
    end if;
end $$;

-- The triggers of the assets' tables. For each statement, so that rows in bulk cost little; after it, so that no trigger of
-- the application's can change what was read; without a list of columns, so that none can be given what this doesn't see.
-- What is noted is what the table says now: a statement within the statement may have written the row again meanwhile, and
-- has had its own triggers before these.
create or replace function storage_cleanup.assets_written() returns trigger
language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_variable
declare
    sources text[];
    assets  jsonb[];
    gone    text[];
begin
    if tg_op = 'INSERT' then
        select array_agg(storage_cleanup.source(tg_relid, written.id::text)), array_agg(coalesce(stored.fields, to_jsonb(written.*)))
        into sources, assets
        from new_rows as written
        left join lateral (
            select to_jsonb(asset.*) as fields from public.user_assets as asset where asset.id = written.id limit 1) as stored on true;
    else        -- old and new are never joined: a plan for one row would be kept for ten thousand
        select array_agg(storage_cleanup.source(tg_relid, changed.id::text)), array_agg(coalesce(stored.fields, changed.fields))
        into sources, assets
        from (select written.id, to_jsonb(written.*) as fields from new_rows as written
              except select former.id, to_jsonb(former.*) from old_rows as former) as changed
        left join lateral (
            select to_jsonb(asset.*) as fields from public.user_assets as asset where asset.id = changed.id limit 1) as stored on true;
        gone := array(
            select storage_cleanup.source(tg_relid, former.id::text)
            from (select each.id from old_rows as each except select each.id from new_rows as each) as former
            where not exists (select from public.user_assets as asset where asset.id = former.id));
        if gone <> '{}' then
            perform storage_cleanup.forget_assets(gone);
        end if;
    end if;
    if sources is not null then
        perform storage_cleanup.note_assets(sources, assets, case when tg_op = 'INSERT' or gone <> '{}' then 'new' else 'change' end, true);
    end if;
    return null;
end $$;

create or replace function storage_cleanup.assets_gone() returns trigger
language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_variable
begin
    if tg_op = 'DELETE' then
        perform storage_cleanup.forget_assets(array(
            select storage_cleanup.source(tg_relid, former.id::text) from old_rows as former
            where not exists (select from public.user_assets as asset where asset.id = former.id)));
    else
        perform storage_cleanup.forget_table(tg_relid);
    end if;
    return null;
end $$;

-- The same for what replication or a restore applies: there, only triggers for each row fire.
create or replace function storage_cleanup.asset_applied() returns trigger
language plpgsql security definer set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off
as $$
#variable_conflict use_variable
begin
    if (tg_op = 'DELETE' or tg_op = 'UPDATE' and new.id is distinct from old.id)
       and not exists (select from public.user_assets as asset where asset.id = old.id) then
        perform storage_cleanup.forget_assets(array[storage_cleanup.source(tg_relid, old.id::text)]);
    end if;
    if tg_op <> 'DELETE' then
        perform storage_cleanup.note_assets(array[storage_cleanup.source(tg_relid, new.id::text)],
                                            array[coalesce((select to_jsonb(asset.*) from public.user_assets as asset where asset.id = new.id), to_jsonb(new))],
                                            case when tg_op = 'UPDATE' and new.id = old.id then 'change' else 'new' end, true);
    end if;
    return null;
end $$;
