-- Takes back everything that install.sql made but an empty bucket, and leaves the application's tables as they were.
-- Run it as the role that ran install.sql, after the schedule has been switched off. Ledger and history go with it.
-- With psql: psql -v ON_ERROR_STOP=1 "$ADMIN_DATABASE_URL" -f database/uninstall.sql, so that an error is the last line.

begin;
set local lock_timeout = '10s';
set local client_min_messages = warning;

do $$
declare
    leftover record;
begin
    if exists (select from pg_namespace
               where nspname = 'storage_cleanup' and not pg_has_role(current_user, nspowner, 'usage'))
    then
        raise exception '% may not remove Storage Cleanup: connect as the role that ran install.sql, on Supabase '
            'postgres (ADMIN_DATABASE_URL, not DATABASE_URL)', current_user;
    end if;
    for leftover in        -- triggers and indexes on the application's tables
        select format('drop trigger if exists %I on %s', tgname, tgrelid::regclass) as command
        from pg_trigger
        join pg_proc on pg_proc.oid = tgfoid
        where not tgisinternal and tgname like 'storage\_cleanup\_%' and pronamespace = to_regnamespace('storage_cleanup')
        union all
        select format('drop index if exists %s', indexrelid::regclass)
        from pg_index join pg_class on pg_class.oid = indexrelid
        where relname like 'storage\_cleanup\_%'
          and indrelid in (to_regclass('public.user_assets'), to_regclass('public.render_jobs'))
    loop
        execute leftover.command;
    end loop;
end $$;

drop schema if exists storage_cleanup cascade;
-- The bucket storage-cleanup stays: Storage lets nobody delete a bucket by SQL. It is empty; the dashboard can delete it.

do $$
begin
    drop role if exists storage_cleanup_worker;
exception when dependent_objects_still_exist then
    raise warning 'role storage_cleanup_worker stays: something outside Storage Cleanup was granted to it';
end $$;

commit;
