-- What the functions say before they are made again; functions_after.sql compares.
create temporary table storage_cleanup_before on commit drop as
    select oid as function, prosrc as body from pg_proc where pronamespace = 'storage_cleanup'::regnamespace;
