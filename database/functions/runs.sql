-- Runs: opened, kept alive, judged by what they leave, closed, forgotten.

-- Makes candidates of what was let go, once their users have had time to take that back. One that is no candidate any more was
-- old enough when it was found saved. At most 50,000 at a time: a whole table of assets may have been emptied.
create or replace function storage_cleanup.take_up_unsaved() returns void
language plpgsql set enable_seqscan = off
as $$
declare
    jobs  uuid[];
    times timestamptz[];
begin
    with taken as (
        delete from storage_cleanup.unsaved
        where ctid = any (array(select ctid from storage_cleanup.unsaved limit 50000 for update skip locked))
        returning job_id, at
    )
    select array_agg(job_id), array_agg(last_at) into jobs, times
    from (select job_id, max(at) as last_at from taken group by job_id) as gone;
    if jobs is null then
        return;
    end if;
    -- Waits for a claim that still saw one of them saved, and is about to forget the candidate for it.
    perform storage_cleanup.hold(jobs, '{}');
    insert into storage_cleanup.candidate (job_id, since, completed_at, has_file, unsaved_at)
    select id, storage_cleanup.created(created_at), storage_cleanup.created(created_at), storage_cleanup.has_file(output_url), last_at
    from unnest(jobs, times) as gone (job_id, last_at) join storage_cleanup.job() on id = job_id and status = 'completed'
    order by id
    on conflict (job_id) do update set unsaved_at = greatest(candidate.unsaved_at, excluded.unsaved_at);
end $$;

-- Records that a run has started, before anything is known of the project. Runs that died are closed first.
create or replace function storage_cleanup.open_run(this_run uuid, trigger text, dry_run boolean, options jsonb, scope jsonb) returns void
language plpgsql security definer set search_path = ''
as $$
begin
    update storage_cleanup.run as dead
    set status = 'failed', finished_at = clock_timestamp(), summary = '{"message": "the run did not finish", "died": true}'
    where storage_cleanup.has_died(dead);

    insert into storage_cleanup.run (id, trigger, dry_run, options, scope)
    values (open_run.this_run, open_run.trigger, open_run.dry_run, open_run.options, open_run.scope);
end $$;

-- Begins a run: from now on it may claim.
create or replace function storage_cleanup.start_run(
    this_run uuid, trigger text, dry_run boolean, options jsonb, scope jsonb, override_of uuid) returns void
language plpgsql security definer set search_path = ''
as $$
begin
    if not exists (select from storage_cleanup.run where id = this_run) then
        perform storage_cleanup.open_run(this_run, trigger, dry_run, options, scope);
    end if;
    perform storage_cleanup.take_up_unsaved();
    perform storage_cleanup.take_back(start_run.scope);

    -- An override is judged by what is there now, and settles it, even when there is nothing left for it to delete.
    if start_run.override_of is not null then
        update storage_cleanup.run
        set override_of = start_run.override_of, counted_assets = storage_cleanup.count_saved()
        where id = start_run.this_run;
    end if;
end $$;

-- The dry run of that id, and whether it may still be carried out.
create or replace function storage_cleanup.plan(plan uuid)
returns table (options jsonb, scope jsonb, finished boolean, fresh boolean, used boolean)
language sql stable security definer set search_path = ''
as $$
    select run.options, run.scope, status in ('succeeded', 'partial'), started_at > now() - interval '24 hours',
           exists (select from storage_cleanup.run as later where later.override_of = run.id)
    from storage_cleanup.run where id = plan.plan and dry_run
$$;

-- Did the run end without a word? An invocation lives for 15 minutes at most. Its claims are leases, which end by themselves.
create or replace function storage_cleanup.has_died(run storage_cleanup.run) returns boolean
language sql stable security definer set search_path = ''
as $$
    select (run).status = 'running' and (run).started_at < clock_timestamp() - interval '16 minutes'
$$;

-- Claims that are unfinished, and those among them that keep failing.
create or replace function storage_cleanup.unfinished() returns table (claims bigint, stuck bigint)
language sql stable security definer set search_path = '' set enable_seqscan = off set enable_bitmapscan = off
as $$
    select count(*), count(*) filter (where state = 'claimed' and attempts >= 3)
    from storage_cleanup.deletion where state in ('claimed', 'file_deleted')
$$;

-- What is unfinished and not this run's to finish now, with the reason: by phase, so that a run can account for it.
create or replace function storage_cleanup.left_alone(this_run uuid) returns table (phase text, reason text, found bigint)
language sql stable security definer set search_path = '' set enable_seqscan = off set enable_bitmapscan = off
as $$
    select 'storage_files', case when quiet_at >= clock_timestamp() then 'claimed_by_another_run' else 'tried_in_vain' end, count(*)
    from storage_cleanup.deletion
    where state = 'claimed' and run_id <> this_run
      and (quiet_at >= clock_timestamp() or attempts >= 5 and attempted_at >= clock_timestamp() - interval '15 minutes')
    group by 1, 2
    union all
    select 'render_jobs', 'claimed_by_another_run', count(*)
    from storage_cleanup.deletion
    where state = 'file_deleted' and run_id is distinct from this_run and quiet_at >= clock_timestamp()
    having count(*) > 0
    union all
    select 'render_jobs', 'row_protected', count(*)
    from storage_cleanup.deletion
    where state = 'file_deleted' and run_id is distinct from this_run and attempts >= 3 and updated_at >= now() - interval '1 hour'
    having count(*) > 0
$$;

-- How many orphans past the age wait, and how many claims are unfinished. Candidates that have been saved meanwhile are
-- left out as far as the first 2000 go: of a long backlog, the number is an upper bound.
create or replace function storage_cleanup.remaining(max_age interval, grace interval) returns bigint
language sql stable security definer set search_path = ''
as $$
    with waiting as (
        select (select count(*) from storage_cleanup.candidate where has_file and since < now() - max_age)
             + (select count(*) from storage_cleanup.candidate where not has_file and since < now() - max_age)
             - (select count(*) from storage_cleanup.candidate where unsaved_at >= now() - grace and since < now() - max_age) as count
    ),
    saved as (
        select count(*) from storage_cleanup.saved_among(array(
            select job_id from storage_cleanup.candidate
            where since < now() - max_age and (unsaved_at is null or unsaved_at < now() - grace) limit 2000))
    )
    select waiting.count - saved.count
         + (select claims from storage_cleanup.unfinished())
    from waiting, saved
$$;

-- What a run leaves for the next: orphans past the age with unfinished claims, the claims that keep failing, and what this
-- run had to leave to others or to later.
create or replace function storage_cleanup.backlog(this_run uuid, max_age interval, grace interval)
returns table (remaining bigint, stuck bigint, left_alone jsonb)
language sql stable security definer set search_path = ''
as $$
    select storage_cleanup.remaining(max_age, grace)
           + (select count(*) from storage_cleanup.run cross join lateral storage_cleanup.set_aside_for_others(run.scope) where run.id = this_run),
           (select stuck from storage_cleanup.unfinished()),
           coalesce((select jsonb_agg(jsonb_build_array(phase, reason, found)) from storage_cleanup.left_alone(this_run)), '[]')
$$;

-- Closes a run. What a run that was found good had counted is part of what the next ones are
-- judged by; an override that failed has settled nothing.
create or replace function storage_cleanup.finish_run(this_run uuid, status text, summary jsonb, found_good boolean) returns void
language sql security definer set search_path = ''
as $$
    update storage_cleanup.run
    set status = finish_run.status, summary = finish_run.summary,
        saved_assets = case when found_good and (override_of is null or finish_run.status <> 'failed') then counted_assets end,
        finished_at = clock_timestamp()
    where id = finish_run.this_run
$$;

-- Forgets what is finished and older than `keep`, a slice at a time, and plans that can't be used any more. Runs and usage
-- are few and small, and stay four times as long: reports look back at a year.
create or replace function storage_cleanup.prune(keep interval) returns void
language sql security definer set search_path = ''
as $$
    delete from storage_cleanup.deletion where (job_id, id) in (
        select job_id, id from storage_cleanup.deletion
        where state in ('done', 'released') and updated_at < now() - keep
        order by updated_at limit 10000 for update skip locked);
    delete from storage_cleanup.run
    where status <> 'running' and started_at < now() - greatest(4 * keep, interval '7 days')
      and id is distinct from (select id from storage_cleanup.run     -- however long nothing was to be done since
                               where not dry_run and saved_assets is not null order by started_at desc limit 1);
    delete from storage_cleanup.usage where day < now() - 4 * keep;
    delete from storage_cleanup.plan_job where run_id in (
        select id from storage_cleanup.run where dry_run and started_at < now() - interval '2 days');
$$;
