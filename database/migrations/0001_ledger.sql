-- What the system remembers.

create table storage_cleanup.run (
    id             uuid primary key default gen_random_uuid(),
    started_at     timestamptz not null default clock_timestamp(),
    heartbeat_at   timestamptz not null default clock_timestamp(),
    finished_at    timestamptz,
    status         text not null default 'running'
                   check (status in ('running', 'succeeded', 'partial', 'failed', 'skipped')),
    trigger        text not null,
    dry_run        boolean not null,
    options        jsonb not null,       -- what was asked for: phases, max_age_minutes, max_deletions, override
    scope          jsonb not null,       -- what may be touched: origin and buckets
    backend_pid    integer not null default pg_backend_pid(),
    counted_assets bigint,               -- highest size of the reference set while this run was judged
    saved_assets   bigint,               -- the same, once the run has been found good: see most_saved
    override_of    uuid,                 -- the plan that this run carried out
    summary        jsonb
);
create index run_by_start on storage_cleanup.run (started_at desc);
create index run_found_good on storage_cleanup.run (started_at desc) where not dry_run and saved_assets is not null;
create index run_unfinished on storage_cleanup.run (id) where status = 'running';

-- The ledger: one row a job that was ever claimed. No foreign keys: the job is about to go, and rows are written in bulk.
create table storage_cleanup.deletion (
    job_id          uuid primary key,
    run_id          uuid,
    state           text not null default 'released'
                    check (state in ('claimed', 'file_deleted', 'done', 'released')),
    bucket_id       text,
    object_name     text,
    bytes           bigint not null default 0,
    attempts        integer not null default 0,
    last_error      text,
    job             jsonb,                -- the row of render_jobs as it was claimed, without its very long values
    completed_at    timestamptz,          -- the candidate's, for when the claim is given back
    claimed_at      timestamptz not null default clock_timestamp(),
    attempted_at    timestamptz,          -- when Storage was last asked to remove the file
    updated_at      timestamptz not null default clock_timestamp()
);
-- Unfinished work only, so it stays small however long the history grows. It is read by plain index scans alone: they mark
-- the entries of what is finished, which bitmap scans would read again and again until the next vacuum.
create index deletion_unfinished on storage_cleanup.deletion (state, job_id)
    where state in ('claimed', 'file_deleted');
-- The history, too: a new job may be given the URL of a file that has gone.
create index deletion_object on storage_cleanup.deletion ((bucket_id || '/' || object_name))
    where state in ('claimed', 'file_deleted', 'done');
create index deletion_finished on storage_cleanup.deletion (updated_at)
    where state in ('done', 'released');

-- Completed jobs that nobody has been seen to save. A superset of the orphans: each is checked before it is claimed.
create table storage_cleanup.candidate (
    job_id        uuid primary key,
    since         timestamptz not null,   -- it is looked at when this is old enough: completed_at, or later
    completed_at  timestamptz not null,   -- its age counts from here: when the trigger saw it complete with this URL
    has_file      boolean not null,
    reason        text                    -- why it was kept when it was last looked at
);
create index candidate_by_age on storage_cleanup.candidate (has_file, since, job_id);

-- What a dry run found: an override may delete these jobs and no others.
create table storage_cleanup.plan_job (
    run_id    uuid not null references storage_cleanup.run on delete cascade,
    job_id    uuid not null,
    has_file  boolean not null,
    primary key (run_id, job_id)
);

-- When the candidates were last compared with everything: one row.
create table storage_cleanup.reconciliation (
    singleton  boolean primary key default true check (singleton),
    last_at    timestamptz not null default now()
);
insert into storage_cleanup.reconciliation default values;

-- Claims may be made in transactions that begin after this: an installation that changes functions stops them meanwhile. One row.
create table storage_cleanup.gate (
    singleton  boolean primary key default true check (singleton),
    opens_at   timestamptz not null default '-infinity'
);
insert into storage_cleanup.gate default values;

-- How far the first look at what was there before the triggers has come: one row.
create table storage_cleanup.first_look (
    singleton  boolean primary key default true check (singleton),
    after_job  uuid not null default '00000000-0000-0000-0000-000000000000',
    done_at    timestamptz
);
insert into storage_cleanup.first_look default values;

-- What lay in Storage, a row a day and bucket: the trend that reports draw.
create table storage_cleanup.usage (
    day        date not null,              -- UTC
    bucket_id  text not null,
    objects    bigint not null,
    bytes      bigint not null,
    taken_at   timestamptz not null default clock_timestamp(),
    primary key (day, bucket_id)
);

-- Columns of user_assets that hold a path or URL of their own; found below, and indexed.
create table storage_cleanup.asset_path_column (
    name  text primary key
);
