-- Version 1: the PutBudget, DropBudget and Reset commands (core/budgets.py), which are always alone.
--
-- A PutBudget is an object: id (of the mark), name (the id to reply), project, subject [scope, id], model, unit, only, defaults
-- (each [scope, window, limit, model, unit, carry_over]), rolls; and those of window, limit, blocked, raised_by, raised_until,
-- carry_over, created_at, bounds, spent that are to change: what is left out stays as it is.

-- Forget one budget; money that is held on it stays held.
CREATE FUNCTION ledger.drop_account_v1(account ledger.accounts) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF account.held = 0 THEN
        DELETE FROM ledger.accounts
        WHERE project = account.project AND scope = account.scope AND subject = account.subject
            AND model = account.model AND period = account.period AND unit = account.unit;
    ELSE
        UPDATE ledger.accounts SET
            spent = 0, models = '{}', alerted = 0, epoch = epoch + 1, pinned = false, blocked = false, own_limit = NULL,
            raised_by = 0, raised_until = 0, carry_over = 0, carried = 0, dropped = true
        WHERE project = account.project AND scope = account.scope AND subject = account.subject
            AND model = account.model AND period = account.period AND unit = account.unit;
    END IF;
END
$$;

-- The new row goes on where `old` stands: its spend, its holds, its limit. Nothing that is held is lost.
CREATE FUNCTION ledger.take_over_v1(owner text, leg jsonb, old ledger.accounts, now bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    old_leg jsonb := jsonb_build_array(old.scope, old.subject, old.model, old.period, old.unit);
    ended boolean := coalesce(old.ends_at <= now, false);
BEGIN
    DELETE FROM ledger.accounts
    WHERE project = owner AND scope = old.scope AND subject = old.subject AND model = old.model
        AND period = old.period AND unit = old.unit;
    UPDATE ledger.accounts SET
        id = old.id, epoch = old.epoch + ended::integer,
        spent = CASE WHEN ended THEN spent ELSE old.spent END,
        models = CASE WHEN ended THEN models ELSE old.models END,
        alerted = CASE WHEN ended THEN alerted ELSE old.alerted END,
        alert_limit = CASE WHEN ended THEN alert_limit ELSE old.alert_limit END,
        held = old.held, pinned = old.pinned, own_limit = old.own_limit, blocked = old.blocked, raised_by = old.raised_by,
        raised_until = old.raised_until, carry_over = old.carry_over, created_at = old.created_at
    WHERE project = owner AND scope = leg->>0 AND subject = leg->>1 AND model = leg->>2 AND period = leg->>3
        AND unit = leg->>4;
    UPDATE ledger.holds h SET legs = (
        SELECT jsonb_agg(CASE WHEN e.each = old_leg THEN leg ELSE e.each END ORDER BY e.place)
        FROM jsonb_array_elements(h.legs) WITH ORDINALITY AS e (each, place)
    )
    WHERE h.project = owner AND h.state = 'open' AND old_leg IN (SELECT jsonb_array_elements(h.legs));
END
$$;

-- The rules of a PutBudget.
CREATE FUNCTION ledger.put_budget_rules_v1(command jsonb, now bigint) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    owner text := command->>'project';
    alone boolean := (command->>'only')::boolean;
    period_ text := command->>'window';
    leg jsonb;
    old ledger.accounts;
    target ledger.accounts;
    other ledger.accounts;
    part jsonb;
BEGIN
    IF EXISTS (SELECT FROM ledger.holds WHERE project = owner AND id = command->>'id') THEN
        RETURN jsonb_build_object('type', 'Done', 'id', command->>'name');
    END IF;
    -- The budget that counts now: the subject's own, else the one that follows a default, else any that is left.
    SELECT * INTO old FROM ledger.accounts a
    WHERE a.project = owner AND a.scope = command->'subject'->>0 AND a.subject = command->'subject'->>1
        AND a.model = command->>'model' AND a.unit = command->>'unit'
    ORDER BY NOT a.pinned, ledger.default_of_v1(a, command->'defaults') IS NULL, a.dropped, a.period
    LIMIT 1;
    IF period_ IS NULL THEN
        period_ := coalesce(old.period, (
            SELECT d->>1 FROM jsonb_array_elements(command->'defaults') WITH ORDINALITY AS each (d, place)
            WHERE d->>0 = command->'subject'->>0 AND d->>3 = command->>'model' AND d->>4 = command->>'unit'
            ORDER BY place LIMIT 1
        ), 'none');
    END IF;
    leg := jsonb_build_array(
        command->'subject'->0, command->'subject'->1, command->'model', to_jsonb(period_), command->'unit'
    );
    target := ledger.account_v1(owner, leg);
    -- The budget becomes this one if the subject is to have one only, or if it follows a default and is given the first limit of
    -- its own. Otherwise calls in flight would not be seen by the new limit.
    IF old.period = period_ OR (NOT alone AND (old.pinned OR NOT command ? 'limit')) THEN
        old := NULL;
    END IF;
    IF old.id IS NOT NULL AND target.id IS NOT NULL THEN
        IF NOT target.pinned AND target.held = 0 AND ledger.default_of_v1(target, command->'defaults') IS NULL THEN
            PERFORM ledger.drop_account_v1(target);
            target := NULL;
        ELSE
            old := NULL;
        END IF;
    END IF;
    IF NOT command ? 'bounds' THEN
        target := ledger.open_window_v1(
            owner, leg, ledger.default_of_v1(target, command->'defaults'), command->'rolls',
            'P:' || (command->>'name') || ':1', now
        );
        IF target.id IS NULL THEN
            PERFORM ledger.undo_v1(jsonb_build_object(
                'type', 'RollNeeded', 'now', now, 'due', jsonb_build_array(ledger.roll_due_v1(owner, leg))
            ));
        END IF;
    ELSE
        INSERT INTO ledger.accounts AS a (project, scope, subject, model, period, unit, id, created_at, starts_at, ends_at)
        VALUES (
            owner, leg->>0, leg->>1, leg->>2, leg->>3, leg->>4, 'P:' || (command->>'name') || ':1', now,
            (command->'bounds'->>0)::bigint, (command->'bounds'->>1)::bigint
        ) ON CONFLICT (project, scope, subject, model, period, unit) DO UPDATE SET
            starts_at = excluded.starts_at, ends_at = excluded.ends_at;
    END IF;
    IF old.id IS NOT NULL THEN
        PERFORM ledger.take_over_v1(owner, leg, old, now);
    END IF;
    IF alone THEN
        FOR other IN
            SELECT * FROM ledger.accounts
            WHERE project = owner AND scope = leg->>0 AND subject = leg->>1 AND model = leg->>2 AND unit = leg->>4
                AND period <> period_
        LOOP
            PERFORM ledger.drop_account_v1(other);
        END LOOP;
    END IF;
    UPDATE ledger.accounts SET
        dropped = false,
        pinned = pinned OR command ? 'limit',
        own_limit = CASE WHEN command ? 'limit' THEN (command->>'limit')::bigint ELSE own_limit END,
        blocked = coalesce((command->>'blocked')::boolean, blocked),
        raised_by = coalesce((command->>'raised_by')::bigint, raised_by),
        raised_until = coalesce((command->>'raised_until')::bigint, raised_until),
        carry_over = coalesce((command->>'carry_over')::bigint, carry_over),
        created_at = coalesce((command->>'created_at')::bigint, created_at)
    WHERE project = owner AND scope = leg->>0 AND subject = leg->>1 AND model = leg->>2 AND period = leg->>3
        AND unit = leg->>4;
    IF command ? 'spent' THEN
        UPDATE ledger.accounts SET
            alerted = 0, epoch = epoch + 1,
            spent = (SELECT coalesce(sum((s->>1)::bigint), 0) FROM jsonb_array_elements(command->'spent') s),
            models = (
                SELECT coalesce(jsonb_object_agg(s->>0, s->1), '{}') FROM jsonb_array_elements(command->'spent') s
                WHERE (s->>1)::bigint <> 0
            )
        WHERE project = owner AND scope = leg->>0 AND subject = leg->>1 AND model = leg->>2 AND period = leg->>3
            AND unit = leg->>4;
    END IF;
    PERFORM ledger.mark_v1(owner, command->>'id', 'done', now);
    RETURN jsonb_build_object('type', 'Done', 'id', command->>'name');
END
$$;

-- Create or change one budget.
CREATE FUNCTION ledger.put_budget_v1(command jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    now bigint := ledger.alone_v1(command);
    reply jsonb;
BEGIN
    RETURN ledger.put_budget_rules_v1(command, now);
EXCEPTION WHEN SQLSTATE 'LB002' THEN
    GET STACKED DIAGNOSTICS reply = PG_EXCEPTION_DETAIL;
    RETURN reply;
END
$$;

-- Forget budgets: id, name, project, subject, and where they are given model and window.
CREATE FUNCTION ledger.drop_budget_v1(command jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    owner text := command->>'project';
    now bigint := ledger.alone_v1(command);
    account ledger.accounts;
BEGIN
    IF NOT EXISTS (SELECT FROM ledger.holds WHERE project = owner AND id = command->>'id') THEN
        FOR account IN
            SELECT * FROM ledger.accounts a
            WHERE a.project = owner AND a.scope = command->'subject'->>0 AND a.subject = command->'subject'->>1
                AND a.model = coalesce(command->>'model', a.model) AND a.period = coalesce(command->>'window', a.period)
        LOOP
            PERFORM ledger.drop_account_v1(account);
        END LOOP;
        PERFORM ledger.mark_v1(owner, command->>'id', 'done', now);
    END IF;
    RETURN jsonb_build_object('type', 'Done', 'id', command->>'name');
END
$$;

-- Set what was spent in the open windows to zero: fields as for dropping. A window that has ended counts as empty already, and
-- what it left is still to be carried over.
CREATE FUNCTION ledger.reset_v1(command jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    owner text := command->>'project';
    now bigint := ledger.alone_v1(command);
BEGIN
    IF NOT EXISTS (SELECT FROM ledger.holds WHERE project = owner AND id = command->>'id') THEN
        UPDATE ledger.accounts a SET spent = 0, models = '{}', alerted = 0, epoch = epoch + 1
        WHERE a.project = owner AND a.scope = command->'subject'->>0 AND a.subject = command->'subject'->>1
            AND a.model = coalesce(command->>'model', a.model) AND a.period = coalesce(command->>'window', a.period)
            AND (a.ends_at IS NULL OR a.ends_at > now);
        PERFORM ledger.mark_v1(owner, command->>'id', 'done', now);
    END IF;
    RETURN jsonb_build_object('type', 'Done', 'id', command->>'name');
END
$$;
