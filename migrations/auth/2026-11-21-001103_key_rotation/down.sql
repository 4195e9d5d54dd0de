alter table signing_keys drop column key_signs_from, drop column key_retires_at;
