-- Version 1: taking holds off, and what happens to held money when a hold is settled, released, replaced or expires
-- (core/holding.py). These functions change rows of any account and hold of the project: who calls them holds the project's
-- lock alone (see locking.sql).
--
-- `named` are the accounts that the command names: a dropped one of them lives on, and stays so once it has been written.

-- Add `amount` (negative to correct) to a breakdown by model, which keeps no zeros.
CREATE FUNCTION ledger.add_to_models_v1(models jsonb, model text, amount bigint) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN amount = 0 THEN models
        WHEN coalesce((models->>model)::bigint, 0) + amount = 0 THEN models - model
        ELSE models || jsonb_build_object(model, coalesce((models->>model)::bigint, 0) + amount)
    END
$$;

-- The amount in an account's unit.
CREATE FUNCTION ledger.amount_of_v1(unit text, usd bigint, calls bigint, tokens bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE unit WHEN 'usd' THEN usd WHEN 'calls' THEN calls ELSE tokens END
$$;

-- Change what is held on an account, if it is there; a dropped one goes away when nothing is held on it any more.
CREATE FUNCTION ledger.change_held_v1(owner text, leg jsonb, amount bigint, named jsonb[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE ledger.accounts SET held = held + amount, dropped = dropped AND NOT leg = ANY (named)
    WHERE project = owner AND scope = leg->>0 AND subject = leg->>1 AND model = leg->>2 AND period = leg->>3
        AND unit = leg->>4;
    DELETE FROM ledger.accounts
    WHERE project = owner AND scope = leg->>0 AND subject = leg->>1 AND model = leg->>2 AND period = leg->>3
        AND unit = leg->>4 AND dropped AND held = 0;
END
$$;

-- Change what is held on all legs of a hold by its amounts, `sign` times.
CREATE FUNCTION ledger.hold_on_legs_v1(hold ledger.holds, sign integer, named jsonb[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    leg jsonb;
BEGIN
    FOR leg IN SELECT jsonb_array_elements(hold.legs) LOOP
        PERFORM ledger.change_held_v1(
            hold.project, leg, sign * ledger.amount_of_v1(leg->>4, hold.usd, hold.calls, hold.tokens), named
        );
    END LOOP;
END
$$;

-- Charge an account, if it is there; returns [id, epoch] of its row and window, else NULL.
CREATE FUNCTION ledger.charge_v1(owner text, leg jsonb, amount bigint, label text, named jsonb[]) RETURNS jsonb
LANGUAGE sql AS $$
    UPDATE ledger.accounts SET
        spent = spent + amount, models = ledger.add_to_models_v1(models, label, amount),
        dropped = dropped AND NOT leg = ANY (named)
    WHERE project = owner AND scope = leg->>0 AND subject = leg->>1 AND model = leg->>2 AND period = leg->>3
        AND unit = leg->>4
    RETURNING jsonb_build_array(id, epoch)
$$;

-- Take an open hold's money off what is held. The caller gives the hold its new state.
CREATE FUNCTION ledger.take_off_v1(hold ledger.holds, named jsonb[]) RETURNS void
LANGUAGE sql AS $$
    SELECT ledger.hold_on_legs_v1(hold, -1, named)
$$;

-- Take a charge out of an open hold's money, as far as that goes.
CREATE FUNCTION ledger.draw_from_parent_v1(
    owner text, parent_id text, usd bigint, calls bigint, tokens bigint, named jsonb[]
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    lender ledger.holds;
BEGIN
    SELECT * INTO lender FROM ledger.holds WHERE project = owner AND id = parent_id AND state = 'open';
    IF NOT FOUND THEN
        RETURN;
    END IF;
    lender.usd := least(usd, lender.usd);
    lender.calls := least(calls, lender.calls);
    lender.tokens := least(tokens, lender.tokens);
    UPDATE ledger.holds h SET usd = h.usd - lender.usd, calls = h.calls - lender.calls, tokens = h.tokens - lender.tokens
    WHERE h.project = owner AND h.id = parent_id;
    PERFORM ledger.hold_on_legs_v1(lender, -1, named);
END
$$;

-- Add to the totals of each of `subjects`, in one order for everybody.
CREATE FUNCTION ledger.record_usage_v1(
    owner text, subjects jsonb, day bigint, label text, spent bigint, calls bigint, input_tokens bigint,
    output_tokens bigint, refusals bigint, unsettled bigint
) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO ledger.usage AS u
    SELECT owner, s->>0, s->>1, record_usage_v1.day, label, record_usage_v1.spent, record_usage_v1.calls,
        record_usage_v1.input_tokens, record_usage_v1.output_tokens, record_usage_v1.refusals, record_usage_v1.unsettled
    FROM jsonb_array_elements(subjects) s ORDER BY (s->>0) COLLATE "C", (s->>1) COLLATE "C"
    ON CONFLICT (project, scope, subject, day, model) DO UPDATE SET
        spent = u.spent + excluded.spent, calls = u.calls + excluded.calls,
        input_tokens = u.input_tokens + excluded.input_tokens, output_tokens = u.output_tokens + excluded.output_tokens,
        refusals = u.refusals + excluded.refusals, unsettled = u.unsettled + excluded.unsettled
$$;

-- The ids of up to `most` open holds (NULL: all) whose time limit has come, in the order of (limit, id).
CREATE FUNCTION ledger.due_v1(owner text, now bigint, most bigint) RETURNS text[]
LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(id ORDER BY at, id), '{}') FROM (
        SELECT at, id FROM ledger.holds WHERE project = owner AND state = 'open' AND at <= now ORDER BY at, id LIMIT most
    ) due
$$;

-- Expire those of `due` that are still open and due, but not `spare`: each is charged its floor, for it was probably sent.
-- Returns how many.
CREATE FUNCTION ledger.expire_v1(owner text, due text[], spare text, now bigint, named jsonb[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    due_id text;
    hold ledger.holds;
    leg jsonb;
    place jsonb;
    places jsonb;
    expired bigint := 0;
    today constant bigint := now / 86400000000;
BEGIN
    FOREACH due_id IN ARRAY due LOOP
        SELECT * INTO hold FROM ledger.holds WHERE project = owner AND id = due_id AND state = 'open' AND at <= now;
        IF NOT FOUND OR due_id IS NOT DISTINCT FROM spare THEN
            CONTINUE;
        END IF;
        PERFORM ledger.take_off_v1(hold, named);
        places := '[]';
        FOR leg IN SELECT jsonb_array_elements(hold.legs) LOOP
            place := ledger.charge_v1(
                owner, leg, ledger.amount_of_v1(leg->>4, hold.floor_usd, hold.floor_calls, hold.floor_tokens), hold.model, named
            );
            IF place IS NOT NULL THEN
                places := places || jsonb_build_array(
                    jsonb_build_array(jsonb_build_array(leg->0, leg->1), place->0, place->1)
                );
            END IF;
        END LOOP;
        UPDATE ledger.holds SET
            state = 'expired', at = now, day = today, charged = places
        WHERE project = owner AND id = due_id;
        PERFORM ledger.record_usage_v1(
            owner, hold.subjects, today, hold.model, hold.floor_usd, hold.floor_calls, hold.floor_tokens, 0, 0, 1
        );
        expired := expired + 1;
    END LOOP;
    RETURN expired;
END
$$;

-- Take back the floor that an expired hold was charged: from the windows that it went to, if they are still the same, and from
-- the totals in any case. Returns the ids of the rows whose earlier windows keep it.
CREATE FUNCTION ledger.refund_floor_v1(hold ledger.holds, named jsonb[]) RETURNS text[]
LANGUAGE plpgsql AS $$
DECLARE
    place jsonb;
    account ledger.accounts;
    subject_ jsonb;
    its_day bigint;
    kept text[] := '{}';
BEGIN
    FOR place IN SELECT jsonb_array_elements(hold.charged) LOOP
        FOR account IN
            SELECT * FROM ledger.accounts
            WHERE project = hold.project AND scope = place->0->>0 AND subject = place->0->>1 AND id = place->>1
        LOOP
            IF account.epoch = (place->>2)::bigint THEN
                PERFORM ledger.charge_v1(
                    hold.project,
                    jsonb_build_array(account.scope, account.subject, account.model, account.period, account.unit),
                    -ledger.amount_of_v1(account.unit, hold.floor_usd, hold.floor_calls, hold.floor_tokens), hold.model, named
                );
            ELSE
                kept := kept || account.id;
            END IF;
        END LOOP;
    END LOOP;
    FOR subject_ IN SELECT jsonb_array_elements(hold.subjects) LOOP
        -- Folded away since, its day is day 0.
        SELECT u.day INTO its_day FROM ledger.usage u
        WHERE u.project = hold.project AND u.scope = subject_->>0 AND u.subject = subject_->>1 AND u.day = hold.day
            AND u.model = hold.model AND u.unsettled >= 1;
        PERFORM ledger.record_usage_v1(
            hold.project, jsonb_build_array(subject_), coalesce(its_day, 0), hold.model, -hold.floor_usd, -hold.floor_calls,
            -hold.floor_tokens, 0, 0, -1
        );
    END LOOP;
    RETURN kept;
END
$$;

-- Leave a mark under an id, in place of the hold or mark that is there.
CREATE FUNCTION ledger.mark_v1(owner text, mark_id text, state text, at bigint, reply text DEFAULT NULL) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO ledger.holds (project, id, state, at, reply) VALUES (owner, mark_id, mark_v1.state, mark_v1.at, mark_v1.reply)
    ON CONFLICT (project, id) DO UPDATE SET
        state = excluded.state, at = excluded.at, reply = excluded.reply, usd = NULL, calls = NULL, tokens = NULL,
        floor_usd = NULL, floor_calls = NULL, floor_tokens = NULL, day = NULL, model = NULL, subjects = NULL, legs = NULL, charged = NULL
$$;

-- Release a hold, whatever has become of it: an expired one gets its floor back, a settled one stays settled, and one that has
-- not been seen is refused when it comes.
CREATE FUNCTION ledger.give_back_v1(owner text, hold_id text, now bigint, named jsonb[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    hold ledger.holds;
BEGIN
    SELECT * INTO hold FROM ledger.holds WHERE project = owner AND id = hold_id;
    IF hold.state NOT IN ('open', 'expired') THEN
        RETURN;
    END IF;
    IF hold.state = 'open' THEN
        PERFORM ledger.take_off_v1(hold, named);
    ELSIF hold.state = 'expired' THEN
        PERFORM ledger.refund_floor_v1(hold, named);
    END IF;
    PERFORM ledger.mark_v1(owner, hold_id, 'released', now);
END
$$;
