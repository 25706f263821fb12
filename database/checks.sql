-- What has to be so before anything is changed.

do $$
begin
    if exists (select from pg_class
               where relnamespace = 'public'::regnamespace and relname in ('render_jobs', 'user_assets')
                 and not pg_has_role(current_user, relowner, 'usage'))
       or not has_database_privilege(current_database(), 'create')
    then
        raise exception '% may not install Storage Cleanup: connect as the owner of public.render_jobs and '
            'public.user_assets, on Supabase postgres (ADMIN_DATABASE_URL, not DATABASE_URL)', current_user;
    end if;
    if to_regclass('public.render_jobs') is null or to_regclass('public.user_assets') is null then
        raise exception 'public.render_jobs and public.user_assets must exist before Storage Cleanup is installed';
    end if;
    if to_regclass('storage.objects') is null then
        raise exception 'storage.objects is missing: this database is not a Supabase project''s';
    end if;
end $$;
