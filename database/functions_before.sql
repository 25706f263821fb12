-- What the functions are before they are made again, and which are others then.
create temporary table storage_cleanup_before on commit drop as
    select oid as function, pg_get_functiondef(oid) as definition
    from pg_proc where pronamespace = 'storage_cleanup'::regnamespace;
create temporary view storage_cleanup_changed as
    select function from storage_cleanup_before where pg_get_functiondef(function) <> definition;

-- Bodies are read against the tables that they name when they are new. Later that would take a lock on each for nothing.
select set_config('check_function_bodies', (not exists (select from storage_cleanup_before))::text, true);
