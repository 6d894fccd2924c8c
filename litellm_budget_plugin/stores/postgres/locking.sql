-- Version 1: what keeps commands apart, and why they cannot wait for each other in a circle.
--
-- Each command is one statement in a transaction of its own: no lock outlives it, and none waits for a client. It runs in one of
-- two ways, and takes its locks in this order:
--
-- Beside others, as nearly every command does: it names accounts that are there, whose windows are open, and nothing is due.
--   1. the project's advisory lock, shared;
--   2. the row of its own hold, if it is there;
--   3. the rows of accounts, in the order of their keys. Nothing is locked between the rows of step 3: all of a subject's
--      accounts, subject by subject, or exactly the legs of a hold;
--   4. new rows of holds, in the order of their ids (INSERT waits for one who is inserting the same id at this moment);
--   5. rows of totals, in the order of their keys.
--   Beside others no account and no row of step 2 is inserted or deleted, and no key changes. So whoever waits in one step
--   waits for somebody who is at the same step, further on in its order, or at a later step: no circle can close. Who waits in
--   step 4 or 5 waits for one that has done its insert or upsert of the same key and only has later ones before it.
--
-- Alone, when a window is new or over, a hold is due, nested, replaced or has been closed before, or a budget changes: the
--   project's advisory lock, exclusively, and then whatever the rules ask for, in any order, for nobody else of this project
--   holds or waits for a row. A command that finds out, beside others, that it has to be alone has to let go of everything
--   first: it leaves the subtransaction (a block with EXCEPTION) that took the locks, which gives them back, the shared
--   advisory lock among them, undoes what it wrote, and only then waits for the exclusive one. Nobody who waits for the
--   exclusive lock holds anything.
--
-- Reading takes no lock: each reply is read by one statement. Rows of two projects are never touched by one command.
--
-- Two deliveries of one command at once are one: a hold that is there is locked in step 2, and of two that insert it in step 4
-- the second sees the conflict when the first has committed, undoes what it did and starts over, alone.
--
-- A row that is locked is read after the wait for it has ended, in its newest version, as READ COMMITTED promises; and each
-- statement of a function sees what was committed before it began. `prepare_v1` refuses any other isolation level.
--
-- The server's clock is read when the locks are held.

-- The key of a project's advisory lock.
CREATE FUNCTION ledger.lock_key_v1(owner text) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT hashtextextended('ledger. ' || owner, 4711)
$$;

-- Take the project's lock, alone, and return the time of the command (microseconds): its own if it brings one, else the clock's.
CREATE FUNCTION ledger.alone_v1(command jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ledger.prepare_v1();
    PERFORM pg_advisory_xact_lock(ledger.lock_key_v1(command->>'project'));
    RETURN ledger.now_v1(command);
END
$$;

CREATE FUNCTION ledger.now_v1(command jsonb) RETURNS bigint
LANGUAGE sql VOLATILE AS $$
    SELECT coalesce((command->>'now')::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
$$;

-- The settings of a command's transaction. A commit does not wait for the disk: a Reserve need not survive a crash of the server,
-- and for what has to, the client sends `durable_v1` behind it, when no lock is held any more. Plans are made once and by
-- index, also while the tables are new and their statistics say that they are empty.
CREATE FUNCTION ledger.prepare_v1() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true), set_config('enable_seqscan', 'off', true),
        set_config('plan_cache_mode', 'force_generic_plan', true);
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported', MESSAGE =
            'the ledger needs transactions to be READ COMMITTED; ALTER ROLE ... SET default_transaction_isolation does that';
    END IF;
END
$$;

-- Take the project's lock beside others.
CREATE FUNCTION ledger.beside_v1(owner text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ledger.prepare_v1();
    PERFORM pg_advisory_xact_lock_shared(ledger.lock_key_v1(owner));
END
$$;

-- Leave the block of a command that turns out to have to be alone, with everything that it has locked and written.
CREATE FUNCTION ledger.leave_v1() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'LB001', MESSAGE = 'this command has to be alone';
END
$$;

-- Return when everything that was committed before is on disk (and on the standbys, as synchronous_commit says).
CREATE FUNCTION ledger.durable_v1() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    -- A commit is flushed only if its transaction has written something.
    PERFORM pg_logical_emit_message(true, 'litellm_budget', '');
END
$$;
