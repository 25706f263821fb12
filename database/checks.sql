-- What has to be so before anything is changed.

do $$
declare
    reasons text;
begin
    if to_regclass('public.render_jobs') is null or to_regclass('public.user_assets') is null then
        raise exception 'public.render_jobs and public.user_assets must exist before Storage Cleanup is installed';
    end if;
    if exists (select from pg_class
               where oid in ('public.render_jobs'::regclass, 'public.user_assets'::regclass)
                 and not pg_has_role(current_user, relowner, 'usage'))
       or not has_database_privilege(current_database(), 'create')
    then
        raise exception '% may not install Storage Cleanup: connect as the owner of public.render_jobs and '
            'public.user_assets, on Supabase postgres (ADMIN_DATABASE_URL, not DATABASE_URL)', current_user;
    end if;
    if to_regclass('storage.objects') is null then
        raise exception 'storage.objects is missing: this database is not a Supabase project''s';
    end if;
    reasons := (select string_agg(sentence, '; ') from pg_temp.unsuitable());
    if reasons is not null then
        raise exception '%', reasons;
    end if;
    if to_regproc('storage_cleanup.schema_version') is not null and to_regclass('storage_cleanup.migration') is null then
        raise exception 'the schema storage_cleanup that is there is older than this release can bring up to date: '
            'run the uninstall.sql that came with it first';
    end if;
    if to_regclass('storage_cleanup.migration') is not null then
        select string_agg(format('%s (%s)', number, name), ', ' order by number) into reasons
        from storage_cleanup.migration
        where (number, name) not in (values (0, ''), ${migrations});
        if reasons is not null then
            raise exception 'this database has a migration that this release doesn''t know, %: install the release that it is from',
                reasons;
        end if;
    end if;
end $$;
