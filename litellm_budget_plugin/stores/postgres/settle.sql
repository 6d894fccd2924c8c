-- Version 1: the Settle, Release and Renew commands (core/settling.py).
--
-- A Settle is an object: hold, project, subjects, payers, models (as in reserve.sql), cost, calls, input_tokens, output_tokens, label
-- (the clean name of the response's model), and where they are given parent, aliases (the ids of marks), unless (the same),
-- thresholds (sorted), at, rolls, now.

-- The thresholds that have been passed and not been reported, in this window and for this limit.
CREATE FUNCTION ledger.crossings_v1(
    leg jsonb, thresholds jsonb, most bigint, spent bigint, starts bigint, alerted bigint, alert_limit bigint
) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_array(leg, starts, most, t.value::bigint, spent) ORDER BY t.value::bigint), '[]')
    FROM jsonb_array_elements(thresholds) t
    WHERE t.value::bigint > CASE WHEN alert_limit = most THEN alerted ELSE 0 END AND spent <> 0
        AND spent::numeric * 1000000 >= t.value::numeric * most
$$;

-- The reply to a Settle that has been settled before.
CREATE FUNCTION ledger.repeated_settle_v1(known ledger.holds) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE
        WHEN (known).reply <> '' AND (known).reply::jsonb->>'type' IN ('Settled', 'AlreadyCharged') THEN (known).reply::jsonb
        ELSE jsonb_build_object('type', 'Settled', 'hold', (known).id, 'crossings', '[]'::jsonb)
    END
$$;

-- The rules of a Settle that is alone.
CREATE FUNCTION ledger.settle_rules_v1(command jsonb, now bigint) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    owner text := command->>'project';
    hold_id text := command->>'hold';
    known ledger.holds;
    due text[];
    applying jsonb;
    reply jsonb;
BEGIN
    SELECT * INTO known FROM ledger.holds WHERE project = owner AND id = hold_id;
    IF known.state = 'settled' THEN
        RETURN ledger.repeated_settle_v1(known);
    END IF;
    due := ledger.due_v1(owner, now, 4);
    IF EXISTS (SELECT FROM ledger.holds WHERE project = owner AND id = command->>'unless') THEN
        PERFORM ledger.give_back_v1(owner, hold_id, now, '{}');
        reply := jsonb_build_object('type', 'AlreadyCharged', 'hold', hold_id);
    ELSE
        applying := ledger.applying_v1(
            owner, command->'subjects', command->'models', command->'rolls', known.legs, 'S:' || hold_id || ':', now
        );
        PERFORM ledger.charge_attempt_v1(command, known, applying, now);
        PERFORM ledger.mark_v1(owner, alias, 'alias', now) FROM jsonb_array_elements_text(command->'aliases') alias;
        reply := jsonb_build_object('type', 'Settled', 'hold', hold_id, 'crossings', '[]'::jsonb);
        IF command ? 'thresholds' THEN
            reply := reply || jsonb_build_object(
                'crossings', ledger.cross_v1(owner, applying, command->'thresholds', now)
            );
        END IF;
    END IF;
    PERFORM ledger.mark_v1(
        owner, hold_id, 'settled', now,
        CASE WHEN reply->>'type' <> 'Settled' OR reply->'crossings' <> '[]' THEN reply::text END
    );
    PERFORM ledger.expire_v1(
        owner, due, NULL, now, ARRAY(SELECT a->0 FROM jsonb_array_elements(applying) a)
    );
    RETURN reply;
END
$$;

-- Take the hold off, or the floor back that it was charged, and charge every account that applies.
CREATE FUNCTION ledger.charge_attempt_v1(command jsonb, known ledger.holds, applying jsonb, now bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    owner text := command->>'project';
    usd bigint := (command->>'cost')::bigint;
    calls bigint := (command->>'calls')::bigint;
    tokens bigint := (command->>'input_tokens')::bigint + (command->>'output_tokens')::bigint;
    named jsonb[] := ARRAY(SELECT a->0 FROM jsonb_array_elements(applying) a);
    kept text[] := '{}';
    floor_usd bigint := 0;
    floor_calls bigint := 0;
    floor_tokens bigint := 0;
    leg jsonb;
    account ledger.accounts;
BEGIN
    IF known.state = 'open' THEN
        PERFORM ledger.take_off_v1(known, named);
    ELSIF known.state = 'expired' THEN
        kept := ledger.refund_floor_v1(known, named);
        floor_usd := known.floor_usd;
        floor_calls := known.floor_calls;
        floor_tokens := known.floor_tokens;
    END IF;
    PERFORM ledger.draw_from_parent_v1(
        owner, CASE WHEN known.id IS NULL THEN command->>'parent' ELSE known.parent END,
        usd - least(usd, floor_usd), calls - least(calls, floor_calls), tokens - least(tokens, floor_tokens), named
    );
    FOREACH leg IN ARRAY named LOOP
        account := ledger.account_v1(owner, leg);
        -- What an earlier window has paid of this attempt, as the floor of its expired hold, it has paid.
        PERFORM ledger.charge_v1(
            owner, leg,
            CASE WHEN account.id = ANY (kept) THEN
                ledger.amount_of_v1(
                    account.unit, usd - least(usd, floor_usd), calls - least(calls, floor_calls),
                    tokens - least(tokens, floor_tokens)
                )
            ELSE
                ledger.amount_of_v1(account.unit, usd, calls, tokens)
            END,
            command->>'label', named
        );
    END LOOP;
    PERFORM ledger.record_usage_v1(
        owner, command->'payers', floor(least((command->>'at')::bigint, now)::numeric / 86400000000)::bigint,
        command->>'label', usd, calls, (command->>'input_tokens')::bigint, (command->>'output_tokens')::bigint, 0, 0
    );
END
$$;

-- Find the thresholds that the accounts have passed, and note that they have been reported.
CREATE FUNCTION ledger.cross_v1(owner text, applying jsonb, thresholds jsonb, now bigint) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    named jsonb;
    account ledger.accounts;
    most bigint;
    passed jsonb;
    crossings jsonb := '[]';
BEGIN
    FOR named IN SELECT jsonb_array_elements(applying) LOOP
        account := ledger.account_v1(owner, named->0);
        most := ledger.effective_limit_v1(account, (named->>1)::bigint, now);
        passed := ledger.crossings_v1(
            named->0, thresholds, most, account.spent, account.starts_at, account.alerted, account.alert_limit
        );
        IF passed <> '[]' THEN
            crossings := crossings || passed;
            UPDATE ledger.accounts SET alerted = (passed->-1->>3)::bigint, alert_limit = most
            WHERE project = owner AND scope = account.scope AND subject = account.subject AND model = account.model
                AND period = account.period AND unit = account.unit;
        END IF;
    END LOOP;
    RETURN crossings;
END
$$;

-- A Settle, alone.
CREATE FUNCTION ledger.settle_alone_v1(command jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    now bigint := ledger.alone_v1(command);
    reply jsonb;
BEGIN
    RETURN ledger.settle_rules_v1(command, now);
EXCEPTION WHEN SQLSTATE 'LB002' THEN
    GET STACKED DIAGNOSTICS reply = PG_EXCEPTION_DETAIL;
    RETURN reply;
END
$$;

CREATE FUNCTION ledger.settle_v1(command jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    RETURN ledger.settle_alone_v1(command);
END
$$;

-- A Release: hold, project.
CREATE FUNCTION ledger.release_v1(command jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    owner text := command->>'project';
    now bigint := ledger.alone_v1(command);
    due text[] := ledger.due_v1(owner, now, 4);
BEGIN
    PERFORM ledger.give_back_v1(owner, command->>'hold', now, '{}');
    PERFORM ledger.expire_v1(owner, due, NULL, now, '{}');
    RETURN jsonb_build_object('type', 'Released', 'hold', command->>'hold');
END
$$;

-- A Renew: holds, project, expires_after.
CREATE FUNCTION ledger.renew_v1(command jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    owner text := command->>'project';
    now bigint := ledger.alone_v1(command);
    due text[] := ledger.due_v1(owner, now, 4);
    until bigint := now + (command->>'expires_after')::bigint;
    missing jsonb;
BEGIN
    SELECT coalesce(jsonb_agg(w.id ORDER BY w.place), '[]') INTO missing
    FROM jsonb_array_elements_text(command->'holds') WITH ORDINALITY AS w (id, place)
    WHERE NOT EXISTS (SELECT FROM ledger.holds h WHERE h.project = owner AND h.id = w.id AND h.state = 'open');
    UPDATE ledger.holds h SET at = until
    FROM jsonb_array_elements_text(command->'holds') AS w (id)
    WHERE h.project = owner AND h.id = w.id AND h.state = 'open' AND h.at < until;
    PERFORM ledger.expire_v1(owner, due, NULL, now, '{}');
    RETURN jsonb_build_object('type', 'Renewed', 'missing', missing);
END
$$;
