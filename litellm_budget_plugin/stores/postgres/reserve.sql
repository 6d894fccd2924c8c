-- Version 1: the Reserve command (core/reserving.py).
--
-- The command is an object: hold, project, subjects (distinct and sorted, as `applying_v1` takes them), payers (the same as [scope, id],
-- in the caller's order), models, label, want, floor (each [usd, calls, tokens]), expires_after, and where they are given at_least,
-- replaces, cheap, patient, rolls, now. The reply is the object of core/wire.py.

-- One refusal.
CREATE FUNCTION ledger.refused_v1(
    hold text, leg jsonb, reason text, own_limit bigint, spent bigint, held bigint, requested bigint, resets_at bigint
) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object(
        'type', 'Refused', 'hold', hold, 'account', leg, 'reason', reason, 'limit', own_limit, 'spent', spent, 'held', held,
        'requested', requested, 'resets_at', resets_at
    )
$$;

-- What is granted: [usd, calls, tokens], or the reply that nothing is. Changes nothing.
CREATE FUNCTION ledger.grant_v1(command jsonb, applying jsonb, now bigint) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    owner text := command->>'project';
    want bigint[] := ARRAY[command->'want'->0, command->'want'->1, command->'want'->2]::text[]::bigint[];
    least_usd bigint := coalesce((command->>'at_least')::bigint, want[1]);
    room_usd bigint := want[1];
    plenty boolean := true;
    freed ledger.holds;
    named jsonb;
    account ledger.accounts;
    wanted bigint;
    needed bigint;
    most bigint;
    held bigint;
    rank integer;
    worst integer := 3;
    refused jsonb;
BEGIN
    SELECT * INTO freed FROM ledger.holds
    WHERE project = owner AND id = command->>'replaces' AND state = 'open';
    FOR named IN SELECT jsonb_array_elements(applying) LOOP
        account := ledger.account_v1(owner, named->0);
        wanted := ledger.amount_of_v1(account.unit, want[1], want[2], want[3]);
        needed := ledger.amount_of_v1(account.unit, least_usd, want[2], want[3]);
        most := ledger.effective_limit_v1(account, (named->>1)::bigint, now);
        IF wanted = 0 OR (most IS NULL AND NOT account.blocked) THEN
            CONTINUE;
        END IF;
        most := coalesce(most, 0);
        held := account.held;
        IF named->0 IN (SELECT jsonb_array_elements(freed.legs)) THEN
            held := held - ledger.amount_of_v1(account.unit, freed.usd, freed.calls, freed.tokens);
        END IF;
        plenty := plenty AND (account.unit = 'calls' OR most - account.spent - held >= 64 * wanted);
        IF account.blocked OR most - account.spent - held < needed OR most - account.spent - held <= 0 THEN
            rank := CASE
                WHEN account.blocked THEN 0 WHEN most - account.spent < needed OR most - account.spent <= 0 THEN 1 ELSE 2
            END;
            IF rank < worst THEN
                worst := rank;
                refused := ledger.refused_v1(
                    command->>'hold', named->0, ('{blocked,spent,held}'::text[])[rank + 1], most, account.spent, held, needed,
                    account.ends_at
                );
            END IF;
        ELSIF account.unit = 'usd' THEN
            room_usd := least(room_usd, most - account.spent - held);
        END IF;
    END LOOP;
    IF (command->>'cheap')::boolean AND NOT plenty THEN
        RETURN jsonb_build_object('type', 'CountExactly', 'hold', command->>'hold');
    END IF;
    RETURN coalesce(refused, jsonb_build_array(room_usd, want[2], want[3]));
END
$$;

-- A Reserve whose hold is known already.
CREATE FUNCTION ledger.repeated_reserve_v1(command jsonb, known ledger.holds, now bigint) RETURNS jsonb
LANGUAGE plpgsql AS $$
BEGIN
    IF known.state = 'open' AND known.at > now THEN
        RETURN jsonb_build_object(
            'type', 'Granted', 'hold', known.id, 'amounts', jsonb_build_array(known.usd, known.calls, known.tokens)
        );
    END IF;
    IF known.state = 'refused' AND known.reply <> '' THEN
        RETURN known.reply::jsonb;
    END IF;
    IF known.state = 'open' THEN
        PERFORM ledger.expire_v1(known.project, ledger.due_v1(known.project, now, NULL), NULL, now, '{}');
    END IF;
    -- The attempt that this hold was for goes on without it, but the one before is over all the same.
    IF command->>'replaces' <> '' THEN
        PERFORM ledger.give_back_v1(known.project, command->>'replaces', now, '{}');
    END IF;
    RETURN jsonb_build_object('type', 'Closed', 'hold', known.id);
END
$$;

-- Put the new hold in place, and take the one that it replaces off.
CREATE FUNCTION ledger.put_hold_v1(command jsonb, granted jsonb, legs jsonb, named jsonb[], now bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    owner text := command->>'project';
    hold ledger.holds;
BEGIN
    IF command->>'replaces' <> '' THEN
        PERFORM ledger.give_back_v1(owner, command->>'replaces', now, named);
    END IF;
    INSERT INTO ledger.holds (
        project, id, state, at, usd, calls, tokens, floor_usd, floor_calls, floor_tokens, model, subjects, legs
    ) VALUES (
        owner, command->>'hold', 'open', now + (command->>'expires_after')::bigint,
        (granted->>0)::bigint, (granted->>1)::bigint, (granted->>2)::bigint,
        least((granted->>0)::bigint, (command->'floor'->>0)::bigint),
        least((granted->>1)::bigint, (command->'floor'->>1)::bigint),
        least((granted->>2)::bigint, (command->'floor'->>2)::bigint),
        command->>'label', command->'payers', legs
    ) RETURNING * INTO hold;
    PERFORM ledger.hold_on_legs_v1(hold, 1, named);
END
$$;

-- The rules of a Reserve that is alone.
CREATE FUNCTION ledger.reserve_rules_v1(command jsonb, now bigint) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    owner text := command->>'project';
    spare text := command->>'replaces';
    known ledger.holds;
    due text[];
    untouched tid[];
    applying jsonb;
    named jsonb[];
    reply jsonb;
    again boolean := false;
BEGIN
    SELECT * INTO known FROM ledger.holds WHERE project = owner AND id = command->>'hold';
    IF FOUND THEN
        RETURN ledger.repeated_reserve_v1(command, known, now);
    END IF;
    due := ledger.due_v1(owner, now, 4);
    IF due <> '{}' THEN
        untouched := ARRAY(SELECT ctid FROM ledger.accounts WHERE project = owner AND dropped);
        PERFORM ledger.expire_v1(owner, due, spare, now, '{}');
    END IF;
    applying := ledger.applying_v1(
        owner, command->'subjects', command->'models', command->'rolls', NULL, 'R:' || (command->>'hold') || ':', now
    );
    named := ARRAY(SELECT a->0 FROM jsonb_array_elements(applying) a);
    IF due <> '{}' THEN
        -- What this command names lives on, where it has been written already.
        UPDATE ledger.accounts SET dropped = false
        WHERE project = owner AND dropped AND ctid <> ALL (untouched)
            AND jsonb_build_array(scope, subject, model, period, unit) = ANY (named);
    END IF;
    LOOP
        reply := ledger.grant_v1(command, applying, now);
        EXIT WHEN again;
        -- Money of calls that are long over must neither refuse a call nor shorten it.
        EXIT WHEN NOT CASE
            WHEN jsonb_typeof(reply) = 'array' THEN (reply->>0)::bigint < (command->'want'->>0)::bigint
            ELSE reply->>'type' = 'Refused'
        END;
        EXIT WHEN ledger.expire_v1(owner, ledger.due_v1(owner, now, NULL), spare, now, named) = 0;
        again := true;
    END LOOP;
    IF jsonb_typeof(reply) = 'array' THEN
        PERFORM ledger.put_hold_v1(command, reply, to_jsonb(named), named, now);
        RETURN jsonb_build_object('type', 'Granted', 'hold', command->>'hold', 'amounts', reply);
    END IF;
    IF reply->>'type' = 'CountExactly' THEN
        PERFORM ledger.undo_v1(reply);
    END IF;
    -- A refusal is recorded, unless the caller will ask again anyway.
    IF NOT (coalesce((command->>'patient')::boolean, false) AND reply->>'reason' = 'held') THEN
        PERFORM ledger.mark_v1(owner, command->>'hold', 'refused', now, reply::text);
        PERFORM ledger.record_usage_v1(
            owner, command->'payers', now / 86400000000, command->>'label', 0, 0, 0, 0, 1, 0
        );
    END IF;
    RETURN reply;
END
$$;

-- A Reserve, alone.
CREATE FUNCTION ledger.reserve_alone_v1(command jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    now bigint := ledger.alone_v1(command);
    reply jsonb;
BEGIN
    RETURN ledger.reserve_rules_v1(command, now);
EXCEPTION WHEN SQLSTATE 'LB002' THEN
    GET STACKED DIAGNOSTICS reply = PG_EXCEPTION_DETAIL;
    RETURN reply;
END
$$;

-- A Reserve. Beside others, if it grants or refuses without opening a window and without expiring or replacing a hold; else alone.
--
-- Written for speed: one pass over each subject's rows, and no function of ours on the way of a grant.
CREATE FUNCTION ledger.reserve_v1(command jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    owner constant text := command->>'project';
    hold_id constant text := command->>'hold';
    time_given constant bigint := (command->>'now')::bigint;
    want_usd constant bigint := (command->'want'->>0)::bigint;
    want_calls constant bigint := (command->'want'->>1)::bigint;
    want_tokens constant bigint := (command->'want'->>2)::bigint;
    least_usd constant bigint := coalesce((command->>'at_least')::bigint, want_usd);
    now bigint;
    room_usd bigint := want_usd;
    due boolean;
    plenty boolean := true;
    named boolean;
    worst integer := 3;
    rank integer;
    payer jsonb;
    key text;
    default_ jsonb;
    missing integer;
    followed text[];
    given_way text[];
    account record;
    leg jsonb;
    most bigint;
    rest bigint;
    wanted bigint;
    needed bigint;
    legs jsonb := '[]';
    places tid[] := '{}';
    amounts bigint[] := '{}';
    refused jsonb;
    known ledger.holds;
BEGIN
    IF command ?| '{replaces,rolls}' THEN
        RETURN ledger.reserve_alone_v1(command);
    END IF;
    BEGIN
        PERFORM ledger.beside_v1(owner);
        now := coalesce(time_given, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
        FOR place IN 0 .. jsonb_array_length(command->'subjects') - 1 LOOP
            payer := command->'subjects'->place;
            missing := (payer->>3)::integer;
            followed := '{}';
            given_way := '{}';
            FOR account IN
                SELECT ctid AS place, model, period, unit, ends_at, pinned, own_limit, spent, held, blocked, dropped, carried,
                    raised_by, raised_until,
                    due IS NULL AND EXISTS (
                        SELECT FROM ledger.holds h WHERE h.project = owner AND h.state = 'open' AND h.at <= now
                    ) AS due
                FROM ledger.accounts a WHERE a.project = owner AND a.scope = payer->>0 AND a.subject = payer->>1
                ORDER BY model, period, unit FOR UPDATE
            LOOP
                due := account.due OR due IS TRUE;
                IF account.pinned THEN
                    most := account.own_limit;
                    named := account.model = '' OR command->'models' ? account.model;
                    -- Defaults give way to a limit of the subject's own.
                    FOR key IN SELECT jsonb_object_keys(payer->2) LOOP
                        default_ := payer->2->key;
                        IF default_->>0 <> account.model OR default_->>2 <> account.unit THEN
                            CONTINUE;
                        END IF;
                        IF key = ANY (followed) THEN
                            -- An account has been taken for one that applies, and does not.
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
                        most := (default_->>3)::bigint;
                    ELSE
                        named := account.blocked AND (account.model = '' OR command->'models' ? account.model);
                        most := NULL;
                    END IF;
                END IF;
                CONTINUE WHEN NOT named;
                now := coalesce(time_given, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
                IF account.ends_at <= now OR account.dropped THEN
                    PERFORM ledger.leave_v1();
                END IF;
                leg := jsonb_build_array(payer->0, payer->1, account.model, account.period, account.unit);
                wanted := CASE account.unit WHEN 'usd' THEN want_usd WHEN 'calls' THEN want_calls ELSE want_tokens END;
                legs := legs || jsonb_build_array(leg);
                places := places || account.place;
                amounts := amounts || wanted;
                most := least(
                    most + account.carried + CASE WHEN now < account.raised_until THEN account.raised_by ELSE 0 END,
                    CASE WHEN most IS NOT NULL THEN 9007199254740991 END
                );
                CONTINUE WHEN wanted = 0 OR (most IS NULL AND NOT account.blocked);
                most := coalesce(most, 0);
                needed := CASE account.unit WHEN 'usd' THEN least_usd ELSE wanted END;
                rest := most - account.spent - account.held;
                plenty := plenty AND (account.unit = 'calls' OR rest >= 64 * wanted);
                IF account.blocked OR rest < needed OR rest <= 0 THEN
                    rank := CASE
                        WHEN account.blocked THEN 0
                        WHEN most - account.spent < needed OR most - account.spent <= 0 THEN 1
                        ELSE 2
                    END;
                    IF rank < worst THEN
                        worst := rank;
                        refused := ledger.refused_v1(
                            hold_id, leg, ('{blocked,spent,held}'::text[])[rank + 1], most, account.spent, account.held, needed,
                            account.ends_at
                        );
                    END IF;
                ELSIF account.unit = 'usd' AND rest < room_usd THEN
                    room_usd := rest;
                END IF;
            END LOOP;
            IF missing <> 0 THEN
                -- An account that is not there yet.
                PERFORM ledger.leave_v1();
            END IF;
        END LOOP;
        IF due IS NULL OR refused IS NOT NULL OR room_usd < want_usd OR (command ? 'cheap' AND NOT plenty) THEN
            now := coalesce(time_given, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
            due := EXISTS (SELECT FROM ledger.holds h WHERE h.project = owner AND h.state = 'open' AND h.at <= now)
                OR EXISTS (SELECT FROM ledger.holds h WHERE h.project = owner AND h.id = hold_id);
        END IF;
        IF due THEN
            PERFORM ledger.leave_v1();
        END IF;
        IF command ? 'cheap' AND NOT plenty THEN
            RETURN jsonb_build_object('type', 'CountExactly', 'hold', hold_id);
        END IF;
        IF refused IS NOT NULL THEN
            -- A refusal is recorded, unless the caller will ask again anyway.
            IF NOT command ? 'patient' OR worst < 2 THEN
                INSERT INTO ledger.holds (project, id, state, at, reply)
                VALUES (owner, hold_id, 'refused', now, refused::text);
                PERFORM ledger.record_usage_v1(
                    owner, command->'payers', now / 86400000000, command->>'label', 0, 0, 0, 0, 1, 0
                );
            END IF;
            RETURN refused;
        END IF;
        FOR number IN 1 .. cardinality(places) LOOP
            UPDATE ledger.accounts SET
                held = held + CASE WHEN unit = 'usd' THEN room_usd ELSE amounts[number] END
            WHERE ctid = places[number];
            IF NOT FOUND THEN
                PERFORM ledger.leave_v1();
            END IF;
        END LOOP;
        INSERT INTO ledger.holds (
            project, id, state, at, usd, calls, tokens, floor_usd, floor_calls, floor_tokens, model, subjects, legs
        ) VALUES (
            owner, hold_id, 'open', now + (command->>'expires_after')::bigint, room_usd, want_calls, want_tokens,
            least(room_usd, (command->'floor'->>0)::bigint), least(want_calls, (command->'floor'->>1)::bigint),
            least(want_tokens, (command->'floor'->>2)::bigint), command->>'label', command->'payers', legs
        );
        RETURN jsonb_build_object(
            'type', 'Granted', 'hold', hold_id, 'amounts', jsonb_build_array(room_usd, want_calls, want_tokens)
        );
    EXCEPTION WHEN SQLSTATE 'LB001' OR unique_violation THEN
        -- Everything is given back that this block has locked and written.
        NULL;
    END;
    -- A repetition, most likely. One whose hold is still open, or was refused, needs no lock for its answer.
    SELECT * INTO known FROM ledger.holds WHERE project = owner AND id = hold_id;
    now := ledger.now_v1(command);
    IF known.state = 'open' AND known.at > now OR known.state = 'refused' AND known.reply <> '' THEN
        RETURN ledger.repeated_reserve_v1(command, known, now);
    END IF;
    RETURN ledger.reserve_alone_v1(command);
END
$$;
