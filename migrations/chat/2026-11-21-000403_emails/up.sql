alter table users
    -- As auth tells it; of users of whom it told before it told this, unknown until they change it.
    add column email varchar(100);
