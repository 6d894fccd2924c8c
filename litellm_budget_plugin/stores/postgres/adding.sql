-- The statements of `add`, by name. See changing.sql for the order of their locks and adding.py for their values.

-- name: guard
WITH checked AS (
    SELECT FROM jsonb_array_elements($2::jsonb) s
    WHERE coalesce((SELECT version FROM ledger.accounts WHERE project = $1 AND owner = (s->>0)::uuid LIMIT 1), 0)
        = (s->>1)::bigint
) SELECT (CASE count(*) WHEN jsonb_array_length($2::jsonb) THEN '1' ELSE 'rows of the ledger have changed, a step is done anew' END)::integer FROM checked

-- name: hold_on
WITH changed AS (
    UPDATE ledger.accounts SET held = held + $7
    WHERE project = $1 AND owner = $2 AND model = $3 AND period = $4 AND unit = $5 AND version = $6
        AND spent + held + $7 <= $8 AND spent = coalesce($9, spent) AND held = coalesce($10, held)
    RETURNING 1
) SELECT (CASE count(*) WHEN 1 THEN '1' ELSE 'rows of the ledger have changed, a step is done anew' END)::integer FROM changed

-- name: charge
WITH changed AS (
    UPDATE ledger.accounts SET held = held + $7, spent = spent + $11, models = CASE
        WHEN coalesce((models->>$12::text)::bigint, 0) + $11 = 0 THEN models - $12::text
        ELSE models || jsonb_build_object($12::text, coalesce((models->>$12::text)::bigint, 0) + $11)
    END
    WHERE project = $1 AND owner = $2 AND model = $3 AND period = $4 AND unit = $5 AND version = $6
        AND spent + held + $7 + $11 <= $8 AND spent = coalesce($9, spent) AND held = coalesce($10, held)
    RETURNING 1
) SELECT (CASE count(*) WHEN 1 THEN '1' ELSE 'rows of the ledger have changed, a step is done anew' END)::integer FROM changed

-- name: new_hold
INSERT INTO ledger.holds (
    project, id, at, full_id, state, usd, calls, tokens, floor_usd, floor_calls, floor_tokens, day, model, subjects, legs,
    charged, reply
) SELECT $1, $2, now + $3::bigint + (CASE
        WHEN now >= $5::bigint AND now < $6::bigint AND current_setting('transaction_isolation') = 'read committed'
        THEN '0' ELSE 'the time of a step is over, it is done anew'
    END)::bigint, $7::text, $8::text, $9::bigint, $10::bigint, $11::bigint, $12::bigint, $13::bigint, $14::bigint, $15::bigint,
    $16::text, $17::jsonb, $18::jsonb, $19::jsonb, $20::text
FROM (SELECT coalesce($4::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) AS now OFFSET 0) clock

-- name: known_hold
WITH changed AS (
    UPDATE ledger.holds SET at = coalesce(now + $3::bigint, at), full_id = $7, state = $8, usd = $9, calls = $10, tokens = $11,
        floor_usd = $12, floor_calls = $13, floor_tokens = $14, day = $15, model = $16, subjects = $17, legs = $18,
        charged = $19, reply = $20
    FROM (SELECT coalesce($4::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) AS now OFFSET 0) clock
    -- `state || ''` keeps the planner off the index of open holds, whose rows are not in the order of their ids.
    WHERE project = $1 AND id = $2 AND state || '' = 'open' AND usd = $21 AND calls = $22 AND tokens = $23 AND legs = $24
        AND now >= $5::bigint AND now < $6::bigint AND current_setting('transaction_isolation') = 'read committed'
    RETURNING 1
) SELECT (CASE count(*) WHEN 1 THEN '1' ELSE 'rows of the ledger have changed, a step is done anew' END)::integer FROM changed

-- name: mark
INSERT INTO ledger.holds (project, id, full_id, state, at) VALUES ($1, $2, $3, 'alias', coalesce($4::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint))
ON CONFLICT (project, id) DO UPDATE SET state = excluded.state, at = excluded.at, usd = NULL, calls = NULL, tokens = NULL,
    floor_usd = NULL, floor_calls = NULL, floor_tokens = NULL, day = NULL, model = NULL, subjects = NULL, legs = NULL,
    charged = NULL, reply = NULL

-- name: total
INSERT INTO ledger.usage AS u (
    project, owner, scope, subject, day, model, spent, calls, input_tokens, output_tokens, refusals, unsettled
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (project, owner, day, model) DO UPDATE SET spent = u.spent + excluded.spent, calls = u.calls + excluded.calls,
    input_tokens = u.input_tokens + excluded.input_tokens, output_tokens = u.output_tokens + excluded.output_tokens,
    refusals = u.refusals + excluded.refusals, unsettled = u.unsettled + excluded.unsettled
