-- The one index on the application's tables: who saved a job, looked up beside what is noted.

-- Hash, because a B-tree would refuse the application's row when a value is long; NULLs take no room in it.
create index if not exists storage_cleanup_render_job_id on public.user_assets
    using hash ((metadata ->> 'render_job_id'));
