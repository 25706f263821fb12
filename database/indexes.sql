-- Indexes on the application's tables.

-- `create index if not exists` would keep what a function that has changed answered before.
do $$
declare
    outdated regclass;
begin
    for outdated in
        select distinct objid::regclass
        from storage_cleanup_before
        join pg_proc on pg_proc.oid = function and prosrc <> body
        join pg_depend on refclassid = 'pg_proc'::regclass and refobjid = function and classid = 'pg_class'::regclass
        join pg_class on pg_class.oid = objid and relkind = 'i'
    loop
        execute format('drop index %s', outdated);
    end loop;
end $$;

-- Hash, because a B-tree would refuse the application's row when a value is long; NULLs take no room in it.
create index if not exists storage_cleanup_render_job_id on public.user_assets
    using hash ((metadata ->> 'render_job_id'));
-- All saves, for counting them without reading them. Its key is the same for all, so it is small, and a write to it cheap.
create index if not exists storage_cleanup_saved on public.user_assets ((true))
    where metadata ->> 'render_job_id' is not null;
-- Unusual spellings only: as good as empty.
create index if not exists storage_cleanup_render_job_ids on public.user_assets
    using gin (storage_cleanup.job_ids_in(metadata ->> 'render_job_id'))
    where not storage_cleanup.is_plain_job_id(metadata ->> 'render_job_id');
create index if not exists storage_cleanup_object_key on public.render_jobs
    using hash (storage_cleanup.object_key(output_url));

-- An asset may point at a file by a path of its own as well.
do $$
declare
    path_column text;
begin
    delete from storage_cleanup.asset_path_column
    where name not in (select column_name from information_schema.columns
                       where table_schema = 'public' and table_name = 'user_assets');
    for path_column in
        select column_name from information_schema.columns
        where table_schema = 'public' and table_name = 'user_assets'
          and data_type in ('text', 'character varying') and is_generated = 'NEVER'
          and column_name ~* '(^|_)(url|uri|path|src|file|file_?name|key|object|location)s?$'
    loop
        insert into storage_cleanup.asset_path_column values (path_column) on conflict do nothing;
        execute format('create index if not exists %I on public.user_assets using hash (storage_cleanup.object_key(%I))',
                       left('storage_cleanup_path_' || path_column, 63), path_column);
    end loop;
end $$;
