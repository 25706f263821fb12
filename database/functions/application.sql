-- The application's tables, as they are read here: under names of our own, so that no column of theirs, whatever it is
-- called, is taken for one of ours. PostgreSQL makes each part of the query that asks.

create or replace function storage_cleanup.job()
returns table (id uuid, status text, output_url text, created_at timestamptz, user_id text, fields jsonb)
language sql stable parallel safe
as $$
    select job.*
    from (select null::text as user_id) as absent       -- stands in where the table has no such column
    cross join lateral (
        select each.id, each.status::text, each.output_url::text, each.created_at::timestamptz, user_id::text, to_jsonb(each.*)
        from public.render_jobs as each) as job
$$;

-- How a row of the application is called where it is noted.
create or replace function storage_cleanup.source(of_table oid, id text) returns text
language sql immutable parallel safe
return of_table || ':' || id;

create or replace function storage_cleanup.asset() returns table (source text, fields jsonb)
language sql stable parallel safe
as $$
    select storage_cleanup.source('public.user_assets'::regclass, each.id::text), to_jsonb(each.*) from public.user_assets as each
$$;
