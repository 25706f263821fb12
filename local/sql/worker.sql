-- What an operator does after install.sql (with a password): the least-privilege role may log in.
alter role storage_cleanup_worker login;
