-- The sample application: people render, and save what they like. Runs as postgres, like any project's own tables.

create table public.render_jobs (
  id           uuid primary key default gen_random_uuid(),
  user_id      uuid not null,
  status       text not null default 'queued',
  prompt       jsonb not null default '{}',
  model        text,
  progress     smallint not null default 0,
  error        text,
  output_url   text,
  created_at   timestamptz not null default now(),
  started_at   timestamptz,
  completed_at timestamptz
);

-- A saved output is an asset of type 'generated_saved' whose metadata names its job under 'render_job_id'.
-- No foreign key says so, and no index helps to find it.
create table public.user_assets (
  id         uuid primary key default gen_random_uuid(),
  user_id    uuid not null,
  asset_type text not null,
  title      text,
  metadata   jsonb not null default '{}',
  file_size  bigint,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz
);

alter table public.render_jobs enable row level security;
alter table public.user_assets enable row level security;

create policy "People see and change their own jobs" on public.render_jobs
  for all to authenticated using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));
create policy "People see and change their own assets" on public.user_assets
  for all to authenticated using (user_id = (select auth.uid())) with check (user_id = (select auth.uid()));
