-- Version 1: rows as they lie here, for copies into and out of other stores.

-- Every project that has a row, sorted.
CREATE FUNCTION ledger.projects_v1() RETURNS jsonb
LANGUAGE sql STABLE AS $$
    SELECT coalesce(jsonb_agg(project ORDER BY project), '[]') FROM (
        SELECT project FROM ledger.accounts UNION SELECT project FROM ledger.holds UNION SELECT project FROM ledger.usage
    ) projects
$$;

-- Up to `most` rows of a table in the order of their keys, those behind the key `after` ([] for the first).
CREATE FUNCTION ledger.export_v1(owner text, part text, after jsonb, most bigint) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    rows jsonb;
BEGIN
    PERFORM ledger.prepare_v1();
    IF part = 'accounts' THEN
        SELECT jsonb_agg(to_jsonb(r)) INTO rows FROM (
            SELECT * FROM ledger.accounts WHERE project = owner AND (
                after = '[]' OR (scope, subject, model, period, unit)
                    > (after->>0, after->>1, after->>2, after->>3, after->>4)
            ) ORDER BY scope, subject, model, period, unit LIMIT most
        ) r;
    ELSIF part = 'holds' THEN
        SELECT jsonb_agg(to_jsonb(r)) INTO rows FROM (
            SELECT * FROM ledger.holds WHERE project = owner AND (after = '[]' OR id > after->>0) ORDER BY id LIMIT most
        ) r;
    ELSE
        SELECT jsonb_agg(to_jsonb(r)) INTO rows FROM (
            SELECT * FROM ledger.usage WHERE project = owner AND (
                after = '[]' OR (scope, subject, day, model) > (after->>0, after->>1, (after->>2)::bigint, after->>3)
            ) ORDER BY scope, subject, day, model LIMIT most
        ) r;
    END IF;
    RETURN coalesce(rows, '[]');
END
$$;

-- Put rows in place of those with the same keys: objects as `export_v1` gives them, in lists.
CREATE FUNCTION ledger.load_v1(owner text, accounts_ jsonb, holds_ jsonb, usage_ jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ledger.alone_v1(jsonb_build_object('project', owner));
    DELETE FROM ledger.accounts a USING jsonb_populate_recordset(NULL::ledger.accounts, accounts_) r
    WHERE a.project = owner AND a.scope = r.scope AND a.subject = r.subject AND a.model = r.model AND a.period = r.period
        AND a.unit = r.unit;
    INSERT INTO ledger.accounts (
        project, scope, subject, model, period, unit, id, created_at, starts_at, ends_at, pinned, own_limit, spent, held, epoch,
        blocked, raised_by, raised_until, carry_over, carried, dropped, alerted, alert_limit, models
    ) SELECT owner, scope, subject, model, period, unit, id, created_at, starts_at, ends_at, pinned, own_limit, spent, held,
        epoch, blocked, raised_by, raised_until, carry_over, carried, dropped, alerted, alert_limit, models
    FROM jsonb_populate_recordset(NULL::ledger.accounts, accounts_);
    DELETE FROM ledger.holds h USING jsonb_populate_recordset(NULL::ledger.holds, holds_) r
    WHERE h.project = owner AND h.id = r.id;
    INSERT INTO ledger.holds (
        project, id, state, at, usd, calls, tokens, floor_usd, floor_calls, floor_tokens, day, model, subjects, legs,
        charged, reply
    ) SELECT owner, id, state, at, usd, calls, tokens, floor_usd, floor_calls, floor_tokens, day, model, subjects, legs,
        charged, reply
    FROM jsonb_populate_recordset(NULL::ledger.holds, holds_);
    DELETE FROM ledger.usage u USING jsonb_populate_recordset(NULL::ledger.usage, usage_) r
    WHERE u.project = owner AND u.scope = r.scope AND u.subject = r.subject AND u.day = r.day AND u.model = r.model;
    INSERT INTO ledger.usage (
        project, scope, subject, day, model, spent, calls, input_tokens, output_tokens, refusals, unsettled
    ) SELECT owner, scope, subject, day, model, spent, calls, input_tokens, output_tokens, refusals, unsettled
    FROM jsonb_populate_recordset(NULL::ledger.usage, usage_);
END
$$;
