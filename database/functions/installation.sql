-- The installation. What belongs on the application's tables is written down here once: both ways of installing make
-- what is missing of it, preflight and health look for it.

-- The function deletes nothing when this number isn't the one that it was built for.
create or replace function storage_cleanup.schema_version() returns integer
language sql immutable parallel safe
return 1;

create or replace function storage_cleanup.wanted_indexes() returns table (name text, definition text)
language sql stable set search_path = ''
as $$
    -- Hash, because a B-tree would refuse the application's row when a value is long; NULLs take no room in it.
    select 'storage_cleanup_render_job_id', 'on public.user_assets using hash ((metadata ->> ''render_job_id''))'
$$;

-- What is wrong with each index: 'missing', 'invalid', 'outdated'; null when nothing is. Its comment says of which definition
-- it was built.
create or replace function storage_cleanup.index_state() returns table (name text, definition text, fingerprint text, fault text)
language sql stable set search_path = ''
as $$
    select wanted.name, wanted.definition, md5(wanted.definition), case
        when indexrelid is null then 'missing'
        when not (indisvalid and indisready) then 'invalid'
        when obj_description(indexrelid, 'pg_class') is distinct from md5(wanted.definition) then 'outdated' end
    from storage_cleanup.wanted_indexes() as wanted
    left join pg_index on indexrelid = to_regclass(format('public.%I', wanted.name))
    order by wanted.name
$$;

-- The triggers in the words of pg_get_triggerdef, with tgenabled, in the order in which they are made. None names a column,
-- in a list or in WHEN: it could no longer be given another type, or be dropped. Those for each row fire where the others
-- don't: for what replication or a restore applies.
create or replace function storage_cleanup.wanted_triggers()
returns table (place integer, name text, of_table regclass, definition text, enabled text)
language sql stable set search_path = ''
as $$
    select place, 'storage_cleanup_' || name, of_table::regclass, format('%s ON %s %s EXECUTE FUNCTION storage_cleanup.%s()',
               happening, of_table, firing, function), enabled
    from (values
        (1, 'job_inserted', 'public.render_jobs', 'AFTER INSERT',
            'REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT', 'jobs_written', 'O'),
        (2, 'job_updated', 'public.render_jobs', 'AFTER UPDATE',
            'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT', 'jobs_written', 'O'),
        (3, 'job_deleted', 'public.render_jobs', 'AFTER DELETE',
            'REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT', 'jobs_gone', 'O'),
        (4, 'job_truncated', 'public.render_jobs', 'AFTER TRUNCATE', 'FOR EACH STATEMENT', 'jobs_gone', 'O'),
        (5, 'job_applied', 'public.render_jobs', 'AFTER INSERT OR DELETE OR UPDATE', 'FOR EACH ROW', 'job_applied', 'R'),
        (6, 'asset_inserted', 'public.user_assets', 'AFTER INSERT',
            'REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT', 'assets_written', 'O'),
        (7, 'asset_updated', 'public.user_assets', 'AFTER UPDATE',
            'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT', 'assets_written', 'O'),
        (8, 'asset_deleted', 'public.user_assets', 'AFTER DELETE',
            'REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT', 'assets_gone', 'O'),
        (9, 'asset_truncated', 'public.user_assets', 'AFTER TRUNCATE', 'FOR EACH STATEMENT', 'assets_gone', 'O'),
        (10, 'asset_applied', 'public.user_assets', 'AFTER INSERT OR DELETE OR UPDATE', 'FOR EACH ROW', 'asset_applied', 'R'))
        as wanted (place, name, of_table, happening, firing, function, enabled)
$$;

-- What is wrong with each trigger: 'missing', 'different'; null when nothing is.
create or replace function storage_cleanup.trigger_state() returns table (place integer, name text, of_table regclass, fault text)
language sql stable set search_path = ''
as $$
    select wanted.place, wanted.name, wanted.of_table, case
        when pg_trigger.oid is null then 'missing'
        when pg_get_triggerdef(pg_trigger.oid) <> format('CREATE TRIGGER %I %s', wanted.name, definition)
             or tgenabled::text <> enabled then 'different' end
    from storage_cleanup.wanted_triggers() as wanted
    left join pg_trigger on tgrelid = wanted.of_table and tgname = wanted.name and not tgisinternal
    order by wanted.place
$$;

-- Makes one trigger. Whatever happened while it was away is looked for afterwards.
create or replace function storage_cleanup.make_trigger(wanted text) returns void
language plpgsql set search_path = ''
as $$
declare
    made record;
begin
    select * into strict made from storage_cleanup.wanted_triggers() where name = wanted;
    execute format('create or replace trigger %I %s', made.name, made.definition);
    if made.enabled = 'R' then
        execute format('alter table %s enable replica trigger %I', made.of_table, made.name);
    end if;
    update storage_cleanup.first_look set fingerprint = null, done_at = null;
end $$;

-- The first look at what was there before the triggers, so many blocks of a table at a time; false when there is no more.
-- The assets come first, so that what they save is no candidate.
-- `compare` does the same for all at once, which would hold up an application that writes one of the rows meanwhile. It only
-- adds: what a row said that is being changed just now does no harm, and the next comparison takes it away.
create or replace function storage_cleanup.look_at_slice(blocks integer) returns boolean
language plpgsql set search_path = ''
as $$
#variable_conflict use_variable
declare
    now_like constant text := storage_cleanup.fingerprint();
    reasons  constant text := (select string_agg(sentence, '; ') from storage_cleanup.distrust() where code <> 'changed');
    look     storage_cleanup.first_look;
    first    tid;
    beyond   tid;
    jobs     uuid[];
    assets   text[];
begin
    if reasons is not null then
        raise exception using errcode = 'object_not_in_prerequisite_state', message = reasons;
    end if;
    update storage_cleanup.first_look set of_table = default, block = default, fingerprint = now_like, done_at = null
    where fingerprint is distinct from now_like or done_at is not null;
    select * into look from storage_cleanup.first_look;
    first := format('(%s,0)', look.block);
    beyond := format('(%s,0)', look.block + blocks);

    if look.of_table = 'render_jobs' then
        perform storage_cleanup.note_holders(array_agg(job.id), array_agg(storage_cleanup.read_part(job.output_url)), 'add')
        from public.render_jobs as job where job.ctid >= first and job.ctid < beyond and job.output_url is not null;
        insert into storage_cleanup.candidate (job_id, since, completed_at, has_file)
        select id, storage_cleanup.created(created_at), storage_cleanup.created(created_at), storage_cleanup.has_file(output_url)
        from (select job.id, job.output_url, job.created_at from public.render_jobs as job
              where job.ctid >= first and job.ctid < beyond and job.status = 'completed') as job
        where true
          and not exists (select from storage_cleanup.mention where mention.id = job.id)
          and not exists (select from storage_cleanup.candidate where job_id = job.id)
          and not exists (select from storage_cleanup.deletion where job_id = job.id and state <> 'released')
        order by id
        on conflict do nothing;
    else
        perform storage_cleanup.note_assets(
            array_agg(storage_cleanup.source(asset.tableoid, asset.id::text)), array_agg(to_jsonb(asset.*)), 'add', false)
        from public.user_assets as asset where asset.ctid >= first and asset.ctid < beyond;
    end if;

    if (look.block + blocks) * current_setting('block_size')::bigint < pg_relation_size(('public.' || look.of_table)::regclass) then
        update storage_cleanup.first_look set block = look.block + blocks;
        return true;
    elsif look.of_table = 'user_assets' then
        update storage_cleanup.first_look set of_table = 'render_jobs', block = 0;
        return true;
    end if;

    -- A row may have moved to a block that was looked at before. If it didn't change in what is read, its trigger noted nothing.
    jobs := array(select storage_cleanup.differing_jobs());
    for i in 1 .. cardinality(jobs) by 5000 loop
        perform storage_cleanup.note_holders(array_agg(id), array_agg(storage_cleanup.read_part(output_url)), 'add')
        from storage_cleanup.job() where id = any (jobs[i : i + 4999]);
    end loop;
    assets := array(select storage_cleanup.differing_assets());
    for i in 1 .. cardinality(assets) by 5000 loop
        perform storage_cleanup.note_assets(array_agg(source), array_agg(fields), 'add', false)
        from storage_cleanup.asset() where source = any (assets[i : i + 4999]);
    end loop;
    update storage_cleanup.first_look set done_at = clock_timestamp();
    update storage_cleanup.comparison set last_at = clock_timestamp(), fingerprint = now_like;
    return false;
end $$;
