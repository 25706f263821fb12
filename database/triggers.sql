-- The triggers on the application's tables. None names a column, in a list or in WHEN: it could no longer be given another
-- type, or be dropped. Those for each row fire where the others don't: for what replication or a restore applies.

create or replace trigger storage_cleanup_asset_inserted after insert on public.user_assets
    referencing new table as new_rows for each statement execute function storage_cleanup.assets_written();
create or replace trigger storage_cleanup_asset_updated after update on public.user_assets
    referencing old table as old_rows new table as new_rows for each statement execute function storage_cleanup.assets_written();
create or replace trigger storage_cleanup_asset_deleted after delete on public.user_assets
    referencing old table as old_rows for each statement execute function storage_cleanup.assets_gone();
create or replace trigger storage_cleanup_asset_truncated after truncate on public.user_assets
    for each statement execute function storage_cleanup.assets_gone();
create or replace trigger storage_cleanup_asset_applied after insert or update or delete on public.user_assets
    for each row execute function storage_cleanup.asset_applied();
alter table public.user_assets enable replica trigger storage_cleanup_asset_applied;

create or replace trigger storage_cleanup_job_inserted after insert on public.render_jobs
    referencing new table as new_rows for each statement execute function storage_cleanup.jobs_written();
create or replace trigger storage_cleanup_job_updated after update on public.render_jobs
    referencing old table as old_rows new table as new_rows for each statement execute function storage_cleanup.jobs_written();
create or replace trigger storage_cleanup_job_deleted after delete on public.render_jobs
    referencing old table as old_rows for each statement execute function storage_cleanup.jobs_gone();
create or replace trigger storage_cleanup_job_truncated after truncate on public.render_jobs
    for each statement execute function storage_cleanup.jobs_gone();
create or replace trigger storage_cleanup_job_applied after insert or update or delete on public.render_jobs
    for each row execute function storage_cleanup.job_applied();
alter table public.render_jobs enable replica trigger storage_cleanup_job_applied;
