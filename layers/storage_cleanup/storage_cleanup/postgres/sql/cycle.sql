-- What a run asks of the database, each a named block. The work is done in functions of database/install.sql, because
-- the worker's role may do nothing else; all of it is safe behind a pooler in transaction mode.

-- name: schema_version
select storage_cleanup.schema_version() as value;

-- name: distrust
-- One sentence a reason why nothing may be deleted.
select sentence as value from storage_cleanup.distrust();

-- name: buckets
select id, created_at from storage_cleanup.buckets();

-- name: start_run
select storage_cleanup.start_run(%(run)s, %(trigger)s, %(dry_run)s, %(options)s, %(scope)s, %(override_of)s);

-- name: finish_run
select storage_cleanup.finish_run(%(run)s, %(status)s, %(summary)s, %(found_good)s);

-- name: plan
-- The dry run of that id, and whether it may still be carried out; times are judged by the database's clock.
select options, scope, status in ('succeeded', 'partial') as finished, started_at > now() - interval '24 hours' as fresh,
       exists (select from storage_cleanup.run as later where later.override_of = run.id) as used
from storage_cleanup.run where id = %(plan)s and dry_run;

-- name: judge_saved
select saved, before from storage_cleanup.judge_saved(%(run)s);

-- name: due
select job_id, since, output_url, too_long, gone
from storage_cleanup.due(
    %(run)s, %(with_file)s, %(max_age)s, %(after_since)s, %(after_job)s, %(size)s, %(own_share)s, %(plan)s);

-- name: park
select storage_cleanup.park(%(jobs)s::uuid[], %(reasons)s::text[], %(max_age)s);

-- name: claim
select job_id, outcome, bucket_id, object_name, bytes, output_url
from storage_cleanup.claim(
    %(run)s, %(jobs)s::uuid[], %(keys)s::text[], %(max_age)s, %(dry_run)s, %(plan)s, %(foreign_urls)s::text[]);

-- name: adopt
select job_id, outcome, bucket_id, object_name, bytes from storage_cleanup.adopt(%(run)s, %(size)s);

-- name: settle
select job_id, gone from storage_cleanup.settle(%(run)s, %(jobs)s::uuid[], %(error)s);

-- name: give_back
select storage_cleanup.give_back(%(run)s, %(jobs)s::uuid[]) as value;

-- name: give_back_abandoned
select storage_cleanup.give_back_abandoned() as value;

-- name: leftover_rows
select storage_cleanup.leftover_rows(%(run)s, %(after_job)s, %(size)s) as value;

-- name: delete_rows
select job_id, outcome, detail from storage_cleanup.delete_rows(%(run)s, %(jobs)s::uuid[]);

-- name: claim_fileless
select job_id, outcome, detail
from storage_cleanup.claim_fileless(%(run)s, %(jobs)s::uuid[], %(max_age)s, %(dry_run)s, %(plan)s);

-- name: backlog
-- What waits for the next run, the claims that keep failing, and what this run had to leave to others or to later.
select storage_cleanup.remaining(%(max_age)s) as remaining, (select stuck from storage_cleanup.unfinished()) as stuck,
       array(select jsonb_build_array(phase, reason, found) from storage_cleanup.left_alone(%(run)s)) as left_alone;

-- name: reconcile_if_due
-- Once a day: finds what the triggers missed. NULL when it isn't time yet.
select storage_cleanup.reconcile_if_due() as value;

-- name: prune
select storage_cleanup.prune(%(keep)s);
