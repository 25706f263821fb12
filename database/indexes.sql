-- The indexes on the application's tables, as far as something is wrong with them.

-- Both tables at once, or neither: holding one and waiting for the other would be a deadlock with whoever does the opposite,
-- and so would be a stronger lock later. Less than deadlock_timeout, so that it is never the application that pays for it.
do $$
declare
    mode text := (select case when bool_or(fault <> 'missing') then 'access exclusive' else 'share row exclusive' end
                  from (select fault from storage_cleanup.index_state()
                        union all
                        select 'missing' from storage_cleanup.trigger_state() where fault is not null
                        union all       -- saves that began under other functions must have ended
                        select 'missing' from storage_cleanup.gate where opens_at = now()
                        union all
                        select 'missing' from storage_cleanup_changed) as wrong
                  where fault is not null having count(*) > 0);
begin
    perform set_config('lock_timeout', '500ms', true);
    for attempt in 1 .. 40 loop
        exit when mode is null;
        begin
            execute format('lock table public.render_jobs, public.user_assets in %s mode', mode);
            mode := null;
        exception when lock_not_available then
            perform pg_sleep(0.2);
        end;
    end loop;
    if mode is not null then
        raise exception 'somebody is always at work in public.render_jobs or public.user_assets: use `make install-database`, '
            'which can go on meanwhile, or try again in a quiet minute';
    end if;
end $$;

do $$
declare
    wanted record;
begin
    for wanted in select * from storage_cleanup.index_state() where fault is not null loop
        execute format('drop index if exists public.%I', wanted.name);
        execute format('create index %I %s', wanted.name, wanted.definition);
        execute format('comment on index public.%I is %L', wanted.name, wanted.fingerprint);
    end loop;
end $$;
