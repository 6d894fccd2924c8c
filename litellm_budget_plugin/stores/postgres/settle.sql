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
    ELSIF known.id IS NULL AND command ? 'parent' THEN
        PERFORM ledger.draw_from_parent_v1(owner, command->>'parent', usd, calls, tokens, named);
    END IF;
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

-- A Settle. Beside others, if its hold is open or has not been seen, and every account that it was held on applies; else alone.
--
-- Written for speed, as `reserve_v1` is; what names an account is told there.
CREATE FUNCTION ledger.settle_v1(command jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    owner constant text := command->>'project';
    hold_id constant text := command->>'hold';
    time_given constant bigint := (command->>'now')::bigint;
    label constant text := command->>'label';
    cost constant bigint := (command->>'cost')::bigint;
    its_calls constant bigint := (command->>'calls')::bigint;
    input constant bigint := (command->>'input_tokens')::bigint;
    output constant bigint := (command->>'output_tokens')::bigint;
    now bigint;
    hold ledger.holds;
    held_legs integer;
    held_on integer := 0;
    payer jsonb;
    key text;
    default_ jsonb;
    missing integer;
    followed text[];
    given_way text[];
    named boolean;
    account ledger.accounts;
    leg jsonb;
    default_limit bigint;
    charge bigint;
    off bigint;
    passed jsonb;
    crossings jsonb := '[]';
    answer jsonb;
BEGIN
    -- A mark named by `unless` that is not this command's own could come into being behind its back.
    IF command ? 'rolls' OR (command ? 'unless' AND NOT coalesce(command->'aliases' ? (command->>'unless'), false)) THEN
        RETURN ledger.settle_alone_v1(command);
    END IF;
    BEGIN
        PERFORM ledger.beside_v1(owner);
        SELECT * INTO hold FROM ledger.holds WHERE project = owner AND id = hold_id FOR UPDATE;
        IF hold.state = 'settled' THEN
            RETURN ledger.repeated_settle_v1(hold);
        END IF;
        IF hold.state <> 'open' OR (hold.id IS NULL AND command ? 'parent') THEN
            PERFORM ledger.leave_v1();
        END IF;
        held_legs := coalesce(jsonb_array_length(hold.legs), 0);
        FOR number IN 0 .. jsonb_array_length(command->'subjects') - 1 LOOP
            payer := command->'subjects'->number;
            missing := (payer->>3)::integer;
            followed := '{}';
            given_way := '{}';
            FOR account IN
                SELECT a.* FROM ledger.accounts a
                WHERE a.project = owner AND a.scope = payer->>0 AND a.subject = payer->>1
                ORDER BY model, period, unit FOR UPDATE
            LOOP
                default_limit := NULL;
                IF account.pinned THEN
                    named := account.model = '' OR command->'models' ? account.model;
                    FOR key IN SELECT jsonb_object_keys(payer->2) LOOP
                        default_ := payer->2->key;
                        IF default_->>0 <> account.model OR default_->>2 <> account.unit THEN
                            CONTINUE;
                        END IF;
                        IF key = ANY (followed) THEN
                            PERFORM ledger.leave_v1();
                        ELSIF NOT key = ANY (given_way) THEN
                            given_way := given_way || key;
                            missing := missing - 1;
                        END IF;
                    END LOOP;
                ELSE
                    key := account.unit || ' ' || account.period || ' ' || account.model;
                    default_ := payer->2->key;
                    IF default_ IS NOT NULL AND NOT key = ANY (given_way) THEN
                        followed := followed || key;
                        missing := missing - 1;
                        named := true;
                        default_limit := (default_->>3)::bigint;
                    ELSE
                        named := account.blocked AND (account.model = '' OR command->'models' ? account.model);
                    END IF;
                END IF;
                leg := jsonb_build_array(payer->0, payer->1, account.model, account.period, account.unit);
                off := 0;
                FOR place IN 0 .. held_legs - 1 LOOP
                    IF hold.legs->place = leg THEN
                        held_on := held_on + 1;
                        off := CASE account.unit WHEN 'usd' THEN hold.usd WHEN 'calls' THEN hold.calls ELSE hold.tokens END;
                        IF NOT named THEN
                            PERFORM ledger.leave_v1();
                        END IF;
                    END IF;
                END LOOP;
                CONTINUE WHEN NOT named;
                now := coalesce(time_given, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
                IF account.ends_at <= now OR account.dropped THEN
                    PERFORM ledger.leave_v1();
                END IF;
                charge := CASE account.unit WHEN 'usd' THEN cost WHEN 'calls' THEN its_calls ELSE input + output END;
                account.spent := account.spent + charge;
                IF command ? 'thresholds' THEN
                    default_limit := ledger.effective_limit_v1(account, default_limit, now);
                    passed := ledger.crossings_v1(
                        leg, command->'thresholds', default_limit, account.spent, account.starts_at, account.alerted,
                        account.alert_limit
                    );
                    IF passed <> '[]' THEN
                        crossings := crossings || passed;
                        account.alerted := passed->-1->3;
                        account.alert_limit := default_limit;
                    END IF;
                END IF;
                UPDATE ledger.accounts a SET
                    held = a.held - off, spent = a.spent + charge, alerted = account.alerted,
                    alert_limit = account.alert_limit, models = ledger.add_to_models_v1(a.models, label, charge)
                WHERE a.project = owner AND a.scope = payer->>0 AND a.subject = payer->>1 AND a.model = account.model
                    AND a.period = account.period AND a.unit = account.unit;
            END LOOP;
            IF missing <> 0 THEN
                PERFORM ledger.leave_v1();
            END IF;
        END LOOP;
        IF held_on < held_legs THEN
            PERFORM ledger.leave_v1();
        END IF;
        now := coalesce(time_given, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
        IF EXISTS (SELECT FROM ledger.holds h WHERE h.project = owner AND h.state = 'open' AND h.at <= now) THEN
            PERFORM ledger.leave_v1();
        END IF;
        answer := jsonb_build_object('type', 'Settled', 'hold', hold_id, 'crossings', crossings);
        IF hold.id IS NOT NULL THEN
            UPDATE ledger.holds h SET
                state = 'settled', at = now, reply = CASE WHEN crossings <> '[]' THEN answer::text END, usd = NULL,
                calls = NULL, tokens = NULL, floor_usd = NULL, floor_calls = NULL, floor_tokens = NULL, model = NULL,
                subjects = NULL, legs = NULL
            WHERE h.project = owner AND h.id = hold_id;
            INSERT INTO ledger.holds (project, id, state, at)
            SELECT owner, alias, 'alias', now FROM jsonb_array_elements_text(command->'aliases') alias;
        ELSE
            INSERT INTO ledger.holds (project, id, state, at, reply)
            SELECT owner, mark, CASE mark WHEN hold_id THEN 'settled' ELSE 'alias' END, now,
                CASE WHEN mark = hold_id AND crossings <> '[]' THEN answer::text END
            FROM (
                SELECT hold_id AS mark UNION ALL SELECT jsonb_array_elements_text(command->'aliases')
            ) marks ORDER BY mark COLLATE "C";
        END IF;
        INSERT INTO ledger.usage AS u
        SELECT owner, s->>0, s->>1, floor(least((command->>'at')::bigint, now)::numeric / 86400000000)::bigint, label, cost,
            its_calls, input, output, 0, 0
        FROM jsonb_array_elements(command->'subjects') s
        ON CONFLICT (project, scope, subject, day, model) DO UPDATE SET
            spent = u.spent + excluded.spent, calls = u.calls + excluded.calls,
            input_tokens = u.input_tokens + excluded.input_tokens, output_tokens = u.output_tokens + excluded.output_tokens;
        RETURN answer;
    EXCEPTION WHEN SQLSTATE 'LB001' OR unique_violation THEN
        -- Everything is given back that this block has locked and written.
        NULL;
    END;
    RETURN ledger.settle_alone_v1(command);
END
$$;

-- A Release, alone.
CREATE FUNCTION ledger.release_alone_v1(command jsonb) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    owner constant text := command->>'project';
    now constant bigint := ledger.alone_v1(command);
    due constant text[] := ledger.due_v1(owner, now, 4);
BEGIN
    PERFORM ledger.give_back_v1(owner, command->>'hold', now, '{}');
    PERFORM ledger.expire_v1(owner, due, NULL, now, '{}');
END
$$;

-- A Release: hold, project. Beside others, if its hold is open or closed for good or has not been seen; else alone.
CREATE FUNCTION ledger.release_v1(command jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    owner constant text := command->>'project';
    hold_id constant text := command->>'hold';
    reply constant jsonb := jsonb_build_object('type', 'Released', 'hold', hold_id);
    now bigint;
    hold ledger.holds;
    leg jsonb;
BEGIN
    BEGIN
        PERFORM ledger.beside_v1(owner);
        SELECT * INTO hold FROM ledger.holds WHERE project = owner AND id = hold_id FOR UPDATE;
        IF hold.state = 'expired' THEN
            PERFORM ledger.leave_v1();
        END IF;
        IF hold.state = 'open' THEN
            FOR leg IN
                SELECT l FROM jsonb_array_elements(hold.legs) l
                ORDER BY (l->>0) COLLATE "C", (l->>1) COLLATE "C", (l->>2) COLLATE "C", (l->>3) COLLATE "C", (l->>4) COLLATE "C"
            LOOP
                UPDATE ledger.accounts SET
                    held = held - CASE unit WHEN 'usd' THEN hold.usd WHEN 'calls' THEN hold.calls ELSE hold.tokens END
                WHERE project = owner AND scope = leg->>0 AND subject = leg->>1 AND model = leg->>2 AND period = leg->>3
                    AND unit = leg->>4 AND NOT dropped;
                IF NOT FOUND THEN
                    PERFORM ledger.leave_v1();
                END IF;
            END LOOP;
        END IF;
        now := ledger.now_v1(command);
        IF EXISTS (SELECT FROM ledger.holds h WHERE h.project = owner AND h.state = 'open' AND h.at <= now) THEN
            PERFORM ledger.leave_v1();
        END IF;
        IF hold.id IS NULL THEN
            INSERT INTO ledger.holds (project, id, state, at) VALUES (owner, hold_id, 'released', now);
        ELSIF hold.state = 'open' THEN
            UPDATE ledger.holds SET
                state = 'released', at = now, usd = NULL, calls = NULL, tokens = NULL, floor_usd = NULL,
                floor_calls = NULL, floor_tokens = NULL, model = NULL, subjects = NULL, legs = NULL
            WHERE project = owner AND id = hold_id;
        END IF;
        RETURN reply;
    EXCEPTION WHEN SQLSTATE 'LB001' OR unique_violation THEN
        NULL;
    END;
    PERFORM ledger.release_alone_v1(command);
    RETURN reply;
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
