-- The candidates: which jobs are worth a look, without searching the history.

-- The next page of candidates in order of age, after the last one of the page before. With a plan: its jobs, in order of
-- id. A URL of more than 8192 bytes isn't handed out: no object needs one, and a page of them could fill a client's memory.
-- `own_share`: only those that fall to this run while several are at work, so that they don't get in each other's way.
create or replace function storage_cleanup.due(
    this_run uuid, with_file boolean, max_age interval, after_since timestamptz, after_job uuid, page_size integer,
    own_share boolean, plan uuid, grace interval default '0')
returns table (job_id uuid, since timestamptz, output_url text, too_long boolean, gone boolean)
language plpgsql stable security definer set search_path = '' set enable_seqscan = off
as $$
declare
    runs integer;
    mine integer;
begin
    perform storage_cleanup.assert_age(max_age);
    if plan is not null then
        return query
        select page.job_id, 'epoch'::timestamptz, case when octet_length(job.output_url) <= 8192 then job.output_url end,
               coalesce(octet_length(job.output_url) > 8192, false), job.id is null
        from storage_cleanup.plan_job as page
        left join storage_cleanup.job() as job on job.id = page.job_id
        where run_id = plan and page.job_id > after_job and has_file = with_file
        order by page.job_id limit page_size;
        return;
    end if;
    select count(*), count(*) filter (where id < this_run) into runs, mine
    from storage_cleanup.run
    where status = 'running' and not dry_run and not storage_cleanup.has_died(run);
    return query
    select page.job_id, page.since, case when octet_length(job.output_url) <= 8192 then job.output_url end,
           coalesce(octet_length(job.output_url) > 8192, false), job.id is null
    from (select candidate.job_id, candidate.since from storage_cleanup.candidate
          where has_file = with_file and candidate.since < now() - max_age
            and (unsaved_at is null or unsaved_at < now() - grace)
            and (candidate.since, candidate.job_id) > (after_since, after_job)
            and (runs < 2 or not own_share or (uuid_hash(candidate.job_id) & 65535) % runs = mine)
          order by candidate.since, candidate.job_id limit page_size) as page
    left join storage_cleanup.job() as job on job.id = page.job_id
    order by page.since, page.job_id;
end $$;

-- Remembers why candidates were kept, so that the next cycle need not look at them again.
-- What has been decided for good leaves; what may change waits an hour; what was only busy stays where it is.
create or replace function storage_cleanup.park(jobs uuid[], reasons text[], max_age interval) returns void
language sql security definer set search_path = ''
as $$
    with verdict as (select * from unnest(jobs, reasons) as verdict (job_id, reason)),
    gone as (
        delete from storage_cleanup.candidate
        where job_id in (
            select job_id from storage_cleanup.candidate join verdict using (job_id)
            where verdict.reason in ('claimed', 'already_missing', 'saved', 'job_gone', 'job_not_completed', 'already_claimed')
              -- One that is saved while it is young may be deleted by its user while it is: its moment is still needed.
              and (verdict.reason <> 'saved' or completed_at < now() - max_age)
            for update of candidate skip locked)
    )
    update storage_cleanup.candidate
    set since = now() + interval '1 hour' - max_age, reason = verdict.reason
    from verdict
    where candidate.job_id = verdict.job_id
      and candidate.job_id in (
          select job_id from storage_cleanup.candidate join verdict using (job_id)
          where verdict.reason not in ('claimed', 'already_missing', 'saved', 'job_gone', 'job_not_completed', 'already_claimed',
                                       'locked', 'job_changed', 'not_in_plan')
          for update of candidate skip locked)
$$;

-- Sets candidates aside whose URL means no object for this run, nor for any other of its scope, until the scope changes: they
-- would be looked at each hour for nothing.
create or replace function storage_cleanup.set_aside(this_run uuid, jobs uuid[], reasons text[]) returns void
language sql security definer set search_path = ''
as $$
    update storage_cleanup.candidate
    set since = 'infinity', reason = verdict.reason,
        out_of_scope = (select storage_cleanup.hash(run.scope::text) from storage_cleanup.run where run.id = set_aside.this_run)
    from unnest(jobs, reasons) as verdict (job_id, reason)
    where candidate.job_id = verdict.job_id
      and candidate.job_id in (select candidate.job_id from storage_cleanup.candidate
                               where candidate.job_id = any (jobs) order by candidate.job_id for update skip locked)
$$;

-- Candidates that were set aside for another scope than this.
create or replace function storage_cleanup.set_aside_for_others(scope jsonb) returns setof uuid
language sql stable set enable_seqscan = off
as $$
    select job_id from storage_cleanup.candidate where out_of_scope < storage_cleanup.hash(scope::text)
    union all
    select job_id from storage_cleanup.candidate where out_of_scope > storage_cleanup.hash(scope::text)
$$;

-- Takes back what was set aside for another scope: at most 50,000 at a time, and nothing that somebody is writing.
create or replace function storage_cleanup.take_back(scope jsonb) returns void
language sql set enable_seqscan = off
as $$
    update storage_cleanup.candidate set since = completed_at, reason = null, out_of_scope = null
    where job_id in (
        select job_id from storage_cleanup.candidate
        where job_id in (select storage_cleanup.set_aside_for_others(take_back.scope) limit 50000) order by job_id for update skip locked)
$$;
