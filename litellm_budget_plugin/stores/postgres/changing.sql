-- The statements that change rows, by name. `ledger` stands for the schema's own name. The values are described where they are
-- given: adding.py, engine.py.
--
-- Locks, and why there is no deadlock:
--
-- An `add` of one step runs beside others. It is one transaction of one round trip and takes its locks in this order:
--   1. the project's advisory lock, shared (`beside`);
--   2. the rows of its accounts, in the order of their keys (`hold_on`, `charge`);
--   3. the rows of its hold and its marks, in the order of their keys (`new_hold`, `known_hold`, `mark`). An INSERT waits for
--      another transaction's uncommitted INSERT of the same key, as if for a lock on the key;
--   4. the rows of its totals, in the order of their keys (`total`), which are upserts as well.
--   Each is a separate statement, and begins when the one before it is done. So a step waits only for steps that are at the
--   same row or further on in this order. No cycle can form.
--
-- Everything else that changes rows runs alone: `transact`, several steps of `add` in one transaction, `load`, `fold`. It takes
--   the project's advisory lock exclusively, before any other lock, and then rows in any order: no other transaction of this
--   project has locked a row or waits for one. Steps of several projects take their locks in the order of the projects' names.
--   A transaction that waits for its first exclusive lock has no other lock. One that waits for a further one waits for
--   transactions that take theirs in the same order, or that run beside others there and wait only for rows of that project.
--
-- `forget` takes no advisory lock. It locks only marks that are not locked, and waits for nothing. Reads take no locks: rows that
--   belong together are read by one statement. No step changes rows of two projects.
--
-- A separate statement takes the advisory lock. Each statement of a READ COMMITTED transaction sees everything committed before
--   it began. So the statements after the lock see all changes of the transactions that it waited for, and they read the clock
--   while the lock is held. Beside others, no account is made or deleted and no version changes, so `guard` needs no row locks.
--   If a row has changed meanwhile, its guard is checked again on the newest version. In another isolation level none of this
--   holds: `transact` asks for READ COMMITTED, and a step of `add` fails without it.
--
-- A failed guard fails its statement, and with it everything up to the end of the batch: completed statements are undone.
--
-- If a client dies between the two round trips of `transact`, its transaction is undone when the server notices, or at the latest
--   when idle_in_transaction_session_timeout ends its session. lock_timeout ensures that no transaction waits for a lock for longer
--   than its client waits for an answer. All settings are the transaction's own; a session keeps only prepared statements.
--
-- A commit does not wait for the disk (synchronous_commit is off): a grant need not survive a crash of the server. If changes must
--   survive one, `flush` follows as a separate transaction: no lock is held then, and one wait serves all earlier commits.

-- name: beside
SELECT set_config('synchronous_commit', 'off', true), set_config('enable_seqscan', 'off', true),
    set_config('lock_timeout', $2, true), pg_advisory_xact_lock_shared(hashtextextended('ledger. ' || $1, 4711))

-- name: begin
BEGIN ISOLATION LEVEL READ COMMITTED

-- name: alone
SELECT set_config('synchronous_commit', 'off', true), set_config('enable_seqscan', 'off', true),
    set_config('idle_in_transaction_session_timeout', $2, true), set_config('lock_timeout', $2, true),
    pg_advisory_xact_lock(hashtextextended('ledger. ' || $1, 4711))

-- name: flush
SELECT set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), true),
    pg_logical_emit_message(true, 'litellm_budget', '')

-- name: versions
UPDATE ledger.accounts SET version = (v->>1)::bigint FROM jsonb_array_elements($2::jsonb) v
WHERE project = $1 AND owner = (v->>0)::uuid

-- name: delete
DELETE FROM ledger.accounts a USING jsonb_populate_recordset(NULL::ledger.accounts, $2::jsonb) r
WHERE a.project = $1 AND a.owner = r.owner AND a.model = r.model AND a.period = r.period AND a.unit = r.unit

-- name: forget
WITH gone AS (
    DELETE FROM ledger.holds WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM ledger.holds WHERE project = $1 AND state <> 'open' AND at < $2
        LIMIT $3::bigint FOR UPDATE SKIP LOCKED
    )) RETURNING 1
) SELECT count(*) FROM gone

-- name: fold
WITH gone AS (
    DELETE FROM ledger.usage WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM ledger.usage WHERE project = $1 AND day > 0 AND day < $2 LIMIT $3::bigint
    )) RETURNING *
), folded AS (
    INSERT INTO ledger.usage AS u (
        project, owner, scope, subject, day, model, spent, calls, input_tokens, output_tokens, refusals, unsettled
    ) SELECT project, owner, scope, subject, 0, model, sum(spent), sum(calls), sum(input_tokens), sum(output_tokens),
        sum(refusals), sum(unsettled) FROM gone GROUP BY project, owner, scope, subject, model
    ON CONFLICT (project, owner, day, model) DO UPDATE SET
        spent = u.spent + excluded.spent, calls = u.calls + excluded.calls,
        input_tokens = u.input_tokens + excluded.input_tokens, output_tokens = u.output_tokens + excluded.output_tokens,
        refusals = u.refusals + excluded.refusals, unsettled = u.unsettled + excluded.unsettled
) SELECT count(*) FROM gone
