-- The triggers on the application's tables, as far as something is wrong with them.
select storage_cleanup.make_trigger(of_table, name) from storage_cleanup.trigger_state() where fault is not null;
