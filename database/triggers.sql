-- The triggers on the application's tables.

-- No trigger of this file names a column, in a list or in WHEN: it could no longer be given another type, or be dropped.
do $$
begin
    execute format(
        'create or replace trigger storage_cleanup_guard before insert or update on public.user_assets '
        'for each row execute function storage_cleanup.guard_save(%s)',
        (select string_agg(quote_literal(name), ', ' order by name) from storage_cleanup.asset_path_column));
end $$;
-- Always: a replication or restore session must not save past the guard either.
alter table public.user_assets enable always trigger storage_cleanup_guard;

create or replace trigger storage_cleanup_track_render after insert or update on public.render_jobs
    for each row execute function storage_cleanup.track_render();
create or replace trigger storage_cleanup_track_unsave after update or delete on public.user_assets
    for each row execute function storage_cleanup.track_unsave();
