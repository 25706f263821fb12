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
    union all
    select 10 + number, 'storage_cleanup_' || name, of_table, format('%s ON %s %s EXECUTE FUNCTION storage_cleanup.place_written()', happening, of_table, firing), 'A'
    from storage_cleanup.place join pg_class on oid = of_table
    cross join (values (1, 'place_written', 'AFTER INSERT OR DELETE OR UPDATE', 'FOR EACH ROW'),
                       (2, 'place_truncated', 'AFTER TRUNCATE', 'FOR EACH STATEMENT')) as wanted (number, name, happening, firing)
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
    order by wanted.place, wanted.of_table
$$;

-- Makes one trigger. Whatever happened while it was away is looked for afterwards.
create or replace function storage_cleanup.make_trigger(on_table regclass, wanted text) returns void
language plpgsql set search_path = ''
as $$
declare
    made record;
begin
    select * into strict made from storage_cleanup.wanted_triggers() where of_table = on_table and name = wanted;
    execute format('create or replace trigger %I %s', made.name, made.definition);
    if made.enabled <> 'O' then
        execute format('alter table %s enable %s trigger %I', made.of_table, case made.enabled when 'R' then 'replica' else 'always' end, made.name);
    end if;
end $$;
