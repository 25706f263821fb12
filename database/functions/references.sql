-- Which of these jobs are saved? The only definition of it.
create or replace function storage_cleanup.saved_among(jobs uuid[]) returns setof uuid
language sql stable security definer set search_path = '' set enable_seqscan = off
as $$
    select job from unnest(jobs) as job
    where exists (select from public.user_assets where metadata ->> 'render_job_id' = job::text)
    union
    select named from public.user_assets, unnest(storage_cleanup.job_ids_in(metadata ->> 'render_job_id')) as named
    where not storage_cleanup.is_plain_job_id(metadata ->> 'render_job_id')
      and storage_cleanup.job_ids_in(metadata ->> 'render_job_id') && jobs and named = any (jobs)
$$;

-- Which of these objects does an asset point at by a path of its own?
create or replace function storage_cleanup.on_assets(keys text[]) returns setof text
language plpgsql stable security definer set search_path = '' set enable_seqscan = off
as $$
declare
    path_column text;
begin
    for path_column in select name from storage_cleanup.asset_path_column loop
        return query execute format(
            'select key from unnest($1) as key where exists (select from public.user_assets '
            'where storage_cleanup.object_key(%1$I) in (key, substr(key, position(''/'' in key) + 1)))', path_column)
        using keys;
    end loop;
end $$;
