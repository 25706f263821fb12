-- The triggers on the application's tables, those of storage_cleanup.triggers() that are missing or different: making one
-- locks its table, so what is there already is left alone. None names a column, in a list or in WHEN: it could no longer be
-- given another type, or be dropped.

do $$
declare
    wanted record;
begin
    for wanted in select * from storage_cleanup.missing_triggers() loop
        execute wanted.statement;
    end loop;
end $$;
