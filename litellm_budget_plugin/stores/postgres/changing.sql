-- The statements that change rows, by their names. `ledger` stands for the schema's own name. Values are described where they are
-- given: adding.py, engine.py.
--
-- Locks, and why there is no deadlock:
--
-- Beside others runs an `add` of one step. It is one transaction of one round trip and takes its locks in this order:
--   1. the project's advisory lock, shared (`beside`);
--   2. the rows of its accounts, in the order of their keys (`hold_on`, `charge`);
--   3. the rows of its hold and its marks, in the order of their keys (`new_hold`, `known_hold`, `mark`). INSERT waits for one who
--      is inserting the same key at this moment, as if that was a lock on the key;
--   4. the rows of its totals, in the order of their keys (`total`), upserts as well.
--   Each is a statement of its own, and begins when the one before it is done. So a step waits only for steps that are at the
--   same row or further on in this order. No circle can close.
--
-- Alone runs everything else that changes rows: `transact`, several steps of `add` in one transaction, `load`, `fold`. It takes the
--   project's advisory lock exclusively, before it has any other lock, and then rows in any order: nobody else of this
--   project has locked a row or waits for one. Steps of several projects take their locks in the order of the projects' names.
--   A transaction that waits for its first exclusive lock has no other lock. One that waits for a further one waits for
--   transactions that take theirs in the same order, or that run beside others there and wait for rows of that project only.
--
-- `forget` takes no advisory lock. It locks marks that nobody else has locked and waits for nobody. Reading takes no locks: what
--   belongs together is read by one statement. No step changes rows of two projects.
--
-- The advisory lock is taken by a statement of its own. Each statement of a READ COMMITTED transaction sees what was committed
--   before it began. So the statements after it see all changes of the transactions that it has waited for, and they read the
--   clock when the lock is held. Beside others no account is made or deleted and no version changes, so `guard` needs no locks of
--   rows. A guard on a row that somebody has changed meanwhile is looked at again on its newest version. In another
--   isolation level none of this holds: `transact` asks for READ COMMITTED, a step of `add` fails without it.
--
-- A guard that fails fails its statement, and with it everything up to the end of the batch: what was done is undone.
--
-- A client that dies between the two round trips of `transact` has its transaction undone when the server notices, or else when
--   idle_in_transaction_session_timeout ends its session. Nobody waits for a lock for longer than its client waits for an answer:
--   lock_timeout ends that. All settings are the transaction's own, and nothing is left in a session but prepared statements.
--
-- A commit does not wait for the disk (synchronous_commit is off): a grant need not survive a crash of the server. For what has to,
--   `flush` is sent behind it, a transaction of its own: no lock is held then, and one wait serves all who have committed.

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
