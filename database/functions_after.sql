-- An index keeps what a function answered when the row was written. One whose function has changed is outdated from this
-- moment on, whatever is installed later; nothing is claimed until it has been built again.
do $$
declare
    outdated regclass;
begin
    for outdated in
        select distinct objid::regclass
        from storage_cleanup_changed
        join pg_depend on refclassid = 'pg_proc'::regclass and refobjid = function and classid = 'pg_class'::regclass
        join pg_class on pg_class.oid = objid and relkind = 'i'
    loop
        execute format('comment on index %s is null', outdated);
    end loop;
end $$;
