-- What the system remembers.

create table storage_cleanup.run (
    id             uuid primary key default gen_random_uuid(),
    started_at     timestamptz not null default clock_timestamp(),
    finished_at    timestamptz,
    status         text not null default 'running'
                   check (status in ('running', 'succeeded', 'partial', 'failed', 'skipped')),
    trigger        text not null,
    dry_run        boolean not null,
    options        jsonb not null,       -- what was asked for: phases, max_age_minutes, max_deletions, override
    scope          jsonb not null,       -- what may be touched: origin and buckets
    counted_assets bigint,               -- highest size of the reference set while this run was judged
    saved_assets   bigint,               -- the same, once the run has been found good: see most_saved
    override_of    uuid,                 -- the plan that this run carried out
    summary        jsonb
);
create index run_by_start on storage_cleanup.run (started_at desc);
create index run_found_good on storage_cleanup.run (started_at desc) where not dry_run and saved_assets is not null;
create index run_unfinished on storage_cleanup.run (id) where status = 'running';

-- The ledger: a row for each claim of a job, appended and never used again, so that a name that is rendered anew gets a claim of
-- its own. No foreign keys: the job is about to go, and rows are written in bulk.
create table storage_cleanup.deletion (
    id              bigint generated always as identity,
    job_id          uuid not null,
    run_id          uuid,
    state           text not null
                    check (state in ('claimed', 'file_deleted', 'done', 'released')),
    bucket_id       text,
    object_name     text,
    object          bigint,               -- the object's hash: storage_cleanup.hash('bucket/name')
    bare            bigint,               -- the hash of its name in whichever bucket
    version         text,                 -- which upload it was: storage_cleanup.version()
    bytes           bigint not null default 0,
    attempts        integer not null default 0,
    last_error      text,
    job             jsonb,                -- the row of render_jobs as it was claimed, without its very long values
    completed_at    timestamptz,          -- the candidate's, for when the claim is given back
    claimed_at      timestamptz not null default clock_timestamp(),
    attempted_at    timestamptz,          -- when Storage was last asked to remove the file
    quiet_at        timestamptz,          -- until then Storage may be at work on a request whose end nobody has seen
    updated_at      timestamptz not null default clock_timestamp(),
    primary key (job_id, id)              -- the only index that a look for a job's claims can take, whatever the statistics say
);
-- Unfinished work only, so it stays small however long the history grows. It is read by plain index scans alone: they mark
-- the entries of what is finished, which bitmap scans would read again and again until the next vacuum.
create unique index deletion_one_a_job on storage_cleanup.deletion (job_id) where state in ('claimed', 'file_deleted');
create index deletion_unfinished on storage_cleanup.deletion (state, job_id)
    where state in ('claimed', 'file_deleted');
-- The history, too: an asset may name a file that has gone.
create index deletion_object on storage_cleanup.deletion (object) where state in ('claimed', 'file_deleted', 'done');
create index deletion_bare on storage_cleanup.deletion (bare) where state in ('claimed', 'file_deleted');
create index deletion_finished on storage_cleanup.deletion (updated_at)
    where state in ('done', 'released');

-- Completed jobs that nobody has been seen to save. A superset of the orphans: each is checked before it is claimed.
create table storage_cleanup.candidate (
    job_id        uuid primary key,
    since         timestamptz not null,   -- it is looked at when this is old enough: completed_at, or later
    completed_at  timestamptz not null,   -- its age counts from here: when the trigger saw it complete with this URL
    has_file      boolean not null,
    reason        text,                   -- why it was kept when it was last looked at
    unsaved_at    timestamptz,            -- when an asset that had kept it was last seen to let it go
    out_of_scope  bigint                  -- the scope (its hash) of a run for which its URL was no object's; it waits for another
);
create index candidate_by_age on storage_cleanup.candidate (has_file, since, job_id);
create index candidate_out_of_scope on storage_cleanup.candidate (out_of_scope) where out_of_scope is not null;
create index candidate_unsaved on storage_cleanup.candidate (unsaved_at) where unsaved_at is not null;

-- Jobs that an asset has let go, and when; the next run takes them for candidates. Only ever added to by the application's
-- transactions, without a key: two of them must not wait for each other at a candidate.
create table storage_cleanup.unsaved (
    job_id  uuid not null,
    at      timestamptz not null default clock_timestamp()
);
create index unsaved_job on storage_cleanup.unsaved (job_id);

-- What a dry run found: an override may delete these jobs and no others.
create table storage_cleanup.plan_job (
    run_id    uuid not null references storage_cleanup.run on delete cascade,
    job_id    uuid not null,
    has_file  boolean not null,
    primary key (run_id, job_id)
);

-- The locks. An object, or a job, is held through the row that its hash names: a fixed number of rows, so that a save puts
-- nothing in place that another save could wait for. Half empty, so that a claim's updates stay on their page.
create table storage_cleanup.lock (
    slot  integer primary key,
    n     bigint not null default 0
) with (fillfactor = 50);
insert into storage_cleanup.lock (slot) select generate_series(0, 8191);

-- Which objects the URL of a job means, under every reading that it allows. Kept here and not in an index on the
-- application's table, so that updates of that table stay cheap.
create table storage_cleanup.holder (
    job_id  uuid not null,
    object  bigint not null
);
create index holder_job on storage_cleanup.holder (job_id);
create index holder_object on storage_cleanup.holder (object);

-- Every UUID in an asset, whether or not a job has that id yet: any of them may name a job. No unique key, here or in the
-- next table: an asset's trigger and a job's could wait for each other at it.
create table storage_cleanup.mention (
    source   text not null,               -- the row that says so: table and id
    id       uuid not null,
    is_save  boolean not null             -- in the place where saves are documented to be: metadata ->> 'render_job_id'
);
create index mention_source on storage_cleanup.mention (source);
create index mention_id on storage_cleanup.mention (id);
create index mention_save on storage_cleanup.mention (is_save) where is_save;

-- Which objects an asset needs: those of the jobs that it names, as their URLs were at that moment and at each change since,
-- and those that its own texts may mean. It outlives the job.
create table storage_cleanup.reference (
    source  text not null,
    object  bigint not null,
    job_id  uuid                          -- the job through which; NULL: the asset says so itself
);
create index reference_source on storage_cleanup.reference (source);
create index reference_object on storage_cleanup.reference (object);

-- Further columns of the application's that may name a file or a job, by table: see protect.
create table storage_cleanup.place (
    of_table  regclass primary key,
    columns   text[] not null,
    key       text[] not null             -- the columns of its primary key
);

-- When everything was last compared, and what the triggers and tables were like then; and how far the comparison has come that
-- is at work: one row.
create table storage_cleanup.comparison (
    singleton    boolean primary key default true check (singleton),
    last_at      timestamptz,             -- NULL: what was there before the triggers hasn't been looked at
    fingerprint  text,
    at_work_on   text,                    -- the fingerprint when it began; NULL: none is at work
    began_in     xid8,                    -- what transactions from this one on have written may have moved
    step         integer not null default 1,
    block        bigint not null default 0,
    after        text not null default '',
    found        bigint not null default 0
);
insert into storage_cleanup.comparison default values;

-- Claims may be made in transactions that begin after this: an installation that changes functions stops them meanwhile. One row.
create table storage_cleanup.gate (
    singleton  boolean primary key default true check (singleton),
    opens_at   timestamptz not null default '-infinity'
);
insert into storage_cleanup.gate default values;

-- What lay in Storage, a row a day and bucket: the trend that reports draw.
create table storage_cleanup.usage (
    day        date not null,              -- UTC
    bucket_id  text not null,
    objects    bigint not null,
    bytes      bigint not null,
    taken_at   timestamptz not null default clock_timestamp(),
    primary key (day, bucket_id)
);
