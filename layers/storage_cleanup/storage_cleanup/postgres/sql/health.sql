-- What health and reports ask of tables that the worker may read itself; the rest is asked of the functions in
-- database/functions/health.sql. All of it in read-only transactions. A cycle is a scheduled run, even a dry one, or a real one by hand;
-- one that was refused (skipped) is none.

-- name: last_cycle
-- The last cycle, and how long ago it started; one that died without a word has failed.
select extract(epoch from now() - started_at)::float / 60 as minutes,
       coalesce((summary ->> 'breaker_open')::boolean, false) as breaker_open, summary ->> 'message' as message
from storage_cleanup.run where (not dry_run or trigger = 'schedule') and status <> 'skipped' order by started_at desc limit 1;

-- name: has_worked
-- Whether any run that was no dry one has ever cleaned Storage to its end.
select exists (select from storage_cleanup.run
               where not dry_run and status in ('succeeded', 'partial') and summary -> 'phases' ? 'storage_files') as value;

-- name: last_scheduled
select options, scope from storage_cleanup.run where trigger = 'schedule' order by started_at desc limit 1;

-- name: failed_cycles
-- How many cycles failed since the last one that didn't, and when that was.
with good as (
    select max(started_at) as at from storage_cleanup.run
    where (not dry_run or trigger = 'schedule') and status in ('succeeded', 'partial')
)
select count(run.id) as failed, at as last_good
from good left join storage_cleanup.run
    on (not dry_run or trigger = 'schedule') and started_at > coalesce(at, '-infinity')
   and (status = 'failed' or storage_cleanup.has_died(run))
group by at;

-- name: cycles_by_day
select (started_at at time zone 'UTC')::date as day, count(*) filter (where status = 'succeeded') as succeeded,
       count(*) filter (where status = 'partial') as partial, count(*) filter (where status = 'failed') as failed
from storage_cleanup.run where (not dry_run or trigger = 'schedule') and started_at > now() - interval '7 days'
group by 1 order by 1;

-- name: failures_reported
-- Runs of any kind that failed in seven days and lived to say so, which CloudWatch has counted, too.
select count(*) as value from storage_cleanup.run
where status = 'failed' and not coalesce(summary ? 'died', false) and started_at > now() - interval '7 days';

-- name: unended
-- Runs of seven days that started and never ended.
select id::text as value from storage_cleanup.run
where started_at > now() - interval '7 days' and (summary ? 'died' or storage_cleanup.has_died(run))
order by started_at desc;

-- name: slowest
-- The longest cycle and the slowest statement of 24 hours.
select max((summary ->> 'seconds')::float) as cycle, max((summary ->> 'slowest_query_seconds')::float) as query
from storage_cleanup.run where (not dry_run or trigger = 'schedule') and started_at > now() - interval '24 hours';

-- name: stuck
select count(*) as value from storage_cleanup.deletion where state = 'claimed' and attempts >= 3;

-- name: completed
select saved, not_saved from storage_cleanup.completed(now() - interval '24 hours');

-- name: assets
select day, asset_type, assets, bytes from storage_cleanup.assets(now() - interval '7 days');

-- name: integrity
select finding as name, found, removed, bytes, coalesce(examples, '{}') as examples
from storage_cleanup.integrity(%(origins)s::text[], %(buckets)s::text[], %(max_age)s, %(grace)s);

-- name: stored
select bucket_id, objects, bytes from storage_cleanup.stored() where bucket_id = any(%(buckets)s::text[]) order by bucket_id;

-- name: usage_before
-- What lay in these buckets at least 20 hours ago, and how long ago that was; and the age of the newest figure.
with total as (
    select day, sum(bytes)::bigint as bytes, extract(epoch from now() - max(taken_at))::float / 3600 as hours
    from storage_cleanup.usage where bucket_id = any(%(buckets)s::text[]) group by day
)
select (select bytes from total where hours >= 20 order by day desc limit 1) as bytes,
       (select hours from total where hours >= 20 order by day desc limit 1) as hours,
       (select min(hours) from total) as newest_hours;

-- name: role
-- What the role may do that it needn't, and what it may not do that it must.
select rolname::text as name,
       array(select proname::text from pg_proc
             where oid in (select storage_cleanup.worker_functions()) and not has_function_privilege(oid, 'execute') order by 1) as missing,
       array_remove(array[case when rolsuper then 'is a superuser' end,
                          case when rolbypassrls then 'bypasses row-level security' end,
                          case when has_table_privilege('public.render_jobs', 'delete')
                                 or has_table_privilege('public.user_assets', 'delete')
                               then 'may delete from the application''s tables' end], null) as excessive
from pg_roles where rolname = current_user;

-- name: days_of_work
-- Cycles by the day, counted back from now: day 0 are the last 24 hours.
select floor(extract(epoch from %(now)s - started_at) / 86400)::integer as days_ago,
       count(*) filter (where status = 'succeeded') as succeeded, count(*) filter (where status = 'partial') as partial,
       count(*) filter (where status = 'failed') as failed,
       coalesce(sum((summary #>> '{phases,storage_files,deleted}')::bigint), 0)::bigint as files,
       coalesce(sum((summary #>> '{phases,storage_files,bytes}')::bigint), 0)::bigint as bytes,
       coalesce(sum((summary #>> '{phases,render_jobs,deleted}')::bigint), 0)::bigint as rows,
       percentile_cont(0.5) within group (order by (summary ->> 'seconds')::float) as median_seconds,
       max((summary ->> 'seconds')::float) as longest_seconds,
       coalesce(sum((summary ->> 'seconds')::float), 0) as all_seconds,
       (array_agg((summary ->> 'remaining')::bigint order by started_at desc) filter (where summary ->> 'remaining' is not null))[1] as left_over
from storage_cleanup.run
where not dry_run and status not in ('running', 'skipped') and started_at <= %(now)s and started_at > %(now)s - %(length)s
group by 1 order by 1 desc;

-- name: failures
-- Things that couldn't be deleted, by reason.
select reason, sum(number::bigint)::bigint as number
from storage_cleanup.run
cross join jsonb_each(summary -> 'phases') as phase (name, account)
cross join jsonb_each_text(account #> '{reasons,failed}') as failure (reason, number)
where not dry_run and started_at <= %(now)s and started_at > %(now)s - %(length)s
  and jsonb_typeof(summary -> 'phases') = 'object'
group by reason order by number desc;

-- name: troubles
-- Cycles that failed, or didn't do all of their work because something failed; the newest thousand.
select started_at, status, summary ->> 'message' as message
from storage_cleanup.run
where not dry_run and started_at <= %(now)s and started_at > %(now)s - %(length)s
  and (status = 'failed' or status = 'partial' and jsonb_path_exists(summary, '$.phases.*.failed ? (@ > 0)'))
order by started_at desc limit 1000;

-- name: usage
select day, bytes, taken_at from storage_cleanup.usage
where bucket_id = any(%(buckets)s::text[]) and taken_at > %(now)s - %(length)s order by day, bucket_id;

-- name: clock
select now() as value;
