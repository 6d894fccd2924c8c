-- Version 2: tables without functions. Packages that know only version 1 call functions that no longer exist, and get an error.

-- Waits until running commands of version 1 have ended.
LOCK TABLE ledger.holds, ledger.accounts, ledger.usage IN ACCESS EXCLUSIVE MODE;

DROP FUNCTION IF EXISTS
    ledger.account_v1, ledger.add_to_models_v1, ledger.alone_v1, ledger.amount_of_v1, ledger.applying_v1, ledger.beside_v1,
    ledger.carried_v1, ledger.change_held_v1, ledger.charge_attempt_v1, ledger.charge_v1, ledger.cross_v1, ledger.crossings_v1,
    ledger.default_of_v1, ledger.draw_from_parent_v1, ledger.drop_account_v1, ledger.drop_budget_v1, ledger.due_v1,
    ledger.durable_v1, ledger.effective_limit_v1, ledger.expire_v1, ledger.export_v1, ledger.forget_v1, ledger.give_back_v1,
    ledger.grant_from_parent_v1, ledger.grant_v1, ledger.hold_on_legs_v1, ledger.leave_v1, ledger.lend_v1,
    ledger.lending_parent_v1, ledger.load_v1, ledger.lock_key_v1, ledger.mark_v1, ledger.now_v1, ledger.open_window_v1,
    ledger.prepare_v1, ledger.projects_v1, ledger.put_budget_rules_v1, ledger.put_budget_v1, ledger.put_hold_v1,
    ledger.put_on_v1, ledger.read_usage_v1, ledger.read_v1, ledger.record_usage_v1, ledger.refund_floor_v1, ledger.refused_v1,
    ledger.release_alone_v1, ledger.release_v1, ledger.renew_v1, ledger.repeated_reserve_v1, ledger.repeated_settle_v1,
    ledger.reserve_alone_v1, ledger.reserve_rules_v1, ledger.reserve_v1, ledger.reset_v1, ledger.roll_due_v1,
    ledger.settle_alone_v1, ledger.settle_rules_v1, ledger.settle_v1, ledger.state_v1, ledger.sweep_v1, ledger.take_off_v1,
    ledger.take_over_v1, ledger.undo_v1;

-- A row of an index has at most 2,704 bytes, an id up to 1,024. `owner` represents scope and subject: it is the first half of the
-- SHA-256 of both with a zero byte between them (rows.py computes the same). Every account of a subject has the subject's version.
-- A function of version 1 that has waited for this lock has a variable named `owner`: its statements on these tables are now
-- ambiguous and fail. They must fail, because they know nothing of versions.
ALTER TABLE ledger.accounts ADD COLUMN owner uuid, ADD COLUMN version bigint NOT NULL DEFAULT 1;
ALTER TABLE ledger.accounts DROP CONSTRAINT accounts_pkey, ALTER COLUMN version SET DEFAULT 0,
    ALTER COLUMN owner TYPE uuid USING encode(
        substr(sha256(convert_to(scope, 'UTF8') || '\x00'::bytea || convert_to(subject, 'UTF8')), 1, 16), 'hex'
    )::uuid;
ALTER TABLE ledger.accounts ADD PRIMARY KEY (project, owner, model, period, unit);
DROP INDEX ledger.accounts_dropped;
CREATE INDEX accounts_subjects ON ledger.accounts (project, left(scope, 64), left(subject, 64));

ALTER TABLE ledger.usage ADD COLUMN owner uuid;
ALTER TABLE ledger.usage DROP CONSTRAINT usage_pkey, ALTER COLUMN owner TYPE uuid USING encode(
    substr(sha256(convert_to(scope, 'UTF8') || '\x00'::bytea || convert_to(subject, 'UTF8')), 1, 16), 'hex'
)::uuid;
ALTER TABLE ledger.usage ADD PRIMARY KEY (project, owner, day, model);
DROP INDEX ledger.usage_days;
CREATE INDEX usage_days ON ledger.usage (project, day);

-- An id that is too long for an index is stored here, and its digest in `id`.
ALTER TABLE ledger.holds ADD COLUMN full_id text COLLATE "C";
-- The money of a hold inside another hold belongs to the outer one: none of it is held on an account.
UPDATE ledger.holds SET usd = 0, calls = 0, tokens = 0 WHERE state = 'open' AND parent IS NOT NULL;
ALTER TABLE ledger.holds DROP COLUMN parent, DROP COLUMN lent_usd, DROP COLUMN lent_calls, DROP COLUMN lent_tokens;
