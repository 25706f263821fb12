-- The indexes on the application's tables, as far as something is wrong with them.

select storage_cleanup.note_path_columns();
do $$
declare
    wanted record;
begin
    for wanted in select * from storage_cleanup.index_state() where fault is not null loop
        execute format('drop index if exists public.%I', wanted.name);
        execute format('create index %I %s', wanted.name, wanted.definition);
        execute format('comment on index public.%I is %L', wanted.name, wanted.fingerprint);
    end loop;
end $$;
