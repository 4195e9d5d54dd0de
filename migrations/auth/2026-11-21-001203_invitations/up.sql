-- Who may register while registration is by invitation. The code is computed from the id and AMPHI_SECRET: it is nowhere.
create table invitations (
    invitation_id uuid primary key,
    -- Null once that administrator's account is deleted.
    invited_by uuid references users on delete set null,
    -- Whom it is for; null: whoever has the code.
    invited_email varchar(100),
    invited_role varchar(20) not null check (invited_role in ('Admin', 'Member')),
    invitation_created_at timestamptz not null,
    invitation_expires_at timestamptz not null,
    invitation_used_at timestamptz,
    -- Who registered with it; null before, and once that account is deleted.
    used_by uuid references users on delete set null
);

create index invitations_invited_by_idx on invitations (invited_by);
create index invitations_used_by_idx on invitations (used_by);
