-- The bucket of the system's own, for the small object by which a run proves that Storage and database are one project.
-- Private, and without a policy: nobody reaches it but the service role.

insert into storage.buckets (id, name, public) values ('storage-cleanup', 'storage-cleanup', false) on conflict do nothing;
