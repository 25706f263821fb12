-- What is there already, and what the triggers missed while they were away.
select storage_cleanup.reconcile('epoch');
select storage_cleanup.remember_usage();
