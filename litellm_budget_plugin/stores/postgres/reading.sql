-- Version 1: the Read, ReadUsage and Sweep commands (core/ledger.py).

-- One account as it stands now, in the order of the fields of AccountState: an ended window is presented as empty.
CREATE FUNCTION ledger.state_v1(account ledger.accounts, defaults jsonb, now bigint) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    default_ jsonb := ledger.default_of_v1(account, defaults);
    ended boolean := coalesce(account.ends_at <= now, false);
BEGIN
    IF ended THEN
        account.carried := ledger.carried_v1(account, account.starts_at, default_);
        account.spent := 0;
        account.models := '{}';
    END IF;
    RETURN jsonb_build_array(
        jsonb_build_array(account.scope, account.subject, account.model, account.period, account.unit),
        account.pinned, account.own_limit, ledger.effective_limit_v1(account, (default_->>2)::bigint, now), account.spent,
        account.held, account.starts_at, account.ends_at, ended, account.blocked, account.raised_by, account.raised_until,
        account.carry_over, account.carried, account.created_at, account.epoch, account.models
    );
END
$$;

-- The accounts of one subject, or a page of a scope's: project, scope, subject (or after and page), defaults. The reply has rows in
-- place of states, and the last subject of a full page.
CREATE FUNCTION ledger.read_v1(command jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    owner text := command->>'project';
    now bigint;
    ids text[];
    rows jsonb;
BEGIN
    PERFORM ledger.prepare_v1();
    now := ledger.now_v1(command);
    IF EXISTS (SELECT FROM ledger.holds WHERE project = owner AND state = 'open' AND at <= now) THEN
        now := ledger.alone_v1(command);
        PERFORM ledger.expire_v1(owner, ledger.due_v1(owner, now, 4), NULL, now, '{}');
    END IF;
    IF command ? 'subject' THEN
        ids := ARRAY[command->>'subject'];
    ELSE
        ids := ARRAY(
            SELECT DISTINCT subject FROM ledger.accounts
            WHERE project = owner AND scope = command->>'scope' AND subject > command->>'after'
            ORDER BY subject LIMIT (command->>'page')::bigint
        );
    END IF;
    SELECT coalesce(
        jsonb_agg(ledger.state_v1(a, command->'defaults', now) ORDER BY a.subject, a.model, a.period, a.unit), '[]'
    ) INTO rows
    FROM ledger.accounts a WHERE a.project = owner AND a.scope = command->>'scope' AND a.subject = ANY (ids);
    RETURN jsonb_build_object(
        'type', 'Accounts', 'now', now, 'rows', rows,
        'after', CASE WHEN NOT command ? 'subject' AND cardinality(ids) = (command->>'page')::bigint THEN ids[cardinality(ids)] END
    );
END
$$;

-- Totals in the order of their keys: project, scope, subject, since, until.
CREATE FUNCTION ledger.read_usage_v1(command jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    rows jsonb;
BEGIN
    PERFORM ledger.prepare_v1();
    SELECT coalesce(jsonb_agg(
        jsonb_build_array(
            scope, subject, day, model, spent, calls, input_tokens, output_tokens, refusals, unsettled
        ) ORDER BY subject, day, model
    ), '[]') INTO rows
    FROM ledger.usage
    WHERE project = command->>'project' AND scope = command->>'scope'
        AND subject = coalesce(command->>'subject', subject)
        AND day BETWEEN (command->>'since')::bigint AND (command->>'until')::bigint;
    RETURN jsonb_build_object('type', 'UsageRows', 'rows', rows);
END
$$;

-- Expire every hold that is due, and fold old days into day 0: project, days_kept.
CREATE FUNCTION ledger.sweep_v1(command jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    owner constant text := command->>'project';
    now constant bigint := ledger.alone_v1(command);
    before_day constant bigint := floor((now - (command->>'days_kept')::bigint)::numeric / 86400000000);
    expired bigint;
    folded bigint;
BEGIN
    expired := ledger.expire_v1(owner, ledger.due_v1(owner, now, NULL), NULL, now, '{}');
    INSERT INTO ledger.usage AS u
    SELECT project, scope, subject, 0, model, sum(spent), sum(calls), sum(input_tokens), sum(output_tokens), sum(refusals),
        sum(unsettled)
    FROM ledger.usage WHERE project = owner AND day > 0 AND day < before_day GROUP BY project, scope, subject, model
    ON CONFLICT (project, scope, subject, day, model) DO UPDATE SET
        spent = u.spent + excluded.spent, calls = u.calls + excluded.calls,
        input_tokens = u.input_tokens + excluded.input_tokens, output_tokens = u.output_tokens + excluded.output_tokens,
        refusals = u.refusals + excluded.refusals, unsettled = u.unsettled + excluded.unsettled;
    DELETE FROM ledger.usage WHERE project = owner AND day > 0 AND day < before_day;
    GET DIAGNOSTICS folded = ROW_COUNT;
    RETURN jsonb_build_object('expired', expired, 'folded', folded);
END
$$;

-- The other half of a Sweep, in a transaction of its own, for it may take long: forget old marks. Takes no lock but on marks that
-- nobody else has, and waits for nobody: project, marks_kept.
CREATE FUNCTION ledger.forget_v1(command jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    before constant bigint := ledger.now_v1(command) - (command->>'marks_kept')::bigint;
    forgotten bigint;
BEGIN
    PERFORM ledger.prepare_v1();
    DELETE FROM ledger.holds WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM ledger.holds
        WHERE project = command->>'project' AND state <> 'open' AND at < before FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN jsonb_build_object('forgotten', forgotten);
END
$$;
