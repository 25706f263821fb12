-- An index keeps what such a function answered when the row was written. So the indexes of a function that this file
-- changes are dropped below, and built again; `create index if not exists` would keep the old answers.
create temporary table storage_cleanup_before on commit drop as
    select oid as function, prosrc as body from pg_proc where pronamespace = 'storage_cleanup'::regnamespace;
