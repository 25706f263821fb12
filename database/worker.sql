-- The worker: may call the functions above that a cycle and health need, and read its own tables. Give it a password with
--        alter role storage_cleanup_worker login password '…';

do $$
begin
    if not exists (select from pg_roles where rolname = 'storage_cleanup_worker') then
        create role storage_cleanup_worker nologin noinherit;
    end if;
end $$;

-- What cycles and health call, and nothing else.
create or replace function storage_cleanup.worker_functions() returns setof regprocedure
language sql stable
as $$
    select oid::regprocedure from pg_proc
    where pronamespace = 'storage_cleanup'::regnamespace and proname = any (array[
        'schema_version', 'distrust', 'buckets', 'canaries', 'count_saved', 'plan', 'open_run', 'start_run', 'due', 'park', 'set_aside', 'claim', 'adopt',
        'settle', 'give_back', 'give_back_abandoned', 'leftover_rows', 'delete_rows', 'claim_fileless', 'backlog',
        'compare_if_due', 'unprotected_among', 'prune', 'judge_saved', 'most_saved', 'first_run_facts', 'finish_run', 'stored', 'orphans', 'completed',
        'assets', 'integrity', 'orphan_bytes', 'index_use', 'foreign_keys_without_index', 'lock_trouble', 'columns_with_paths', 'has_died'])
$$;

revoke all on all tables in schema storage_cleanup from public;
revoke all on all functions in schema storage_cleanup from public;
grant execute on function storage_cleanup.worker_functions() to public;     -- health asks any role for what it lacks

grant usage on schema storage_cleanup to storage_cleanup_worker;
grant select on storage_cleanup.run, storage_cleanup.deletion, storage_cleanup.candidate, storage_cleanup.plan_job,
    storage_cleanup.usage
    to storage_cleanup_worker;
do $$
declare
    needed regprocedure;
begin
    for needed in select storage_cleanup.worker_functions() loop
        execute format('grant execute on function %s to storage_cleanup_worker', needed);
    end loop;
end $$;
