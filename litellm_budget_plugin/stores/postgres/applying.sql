-- Version 1: which accounts a command names, and the opening of their windows (core/applying.py). For commands that are alone.

-- The limit that counts at a time (core/accounts.py effective_limit): own or default, plus what was carried over, plus a raise.
CREATE FUNCTION ledger.effective_limit_v1(account ledger.accounts, default_limit bigint, now bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN (CASE WHEN (account).pinned THEN (account).own_limit ELSE default_limit END) IS NOT NULL THEN
        least(
            CASE WHEN (account).pinned THEN (account).own_limit ELSE default_limit END + (account).carried
                + CASE WHEN now < (account).raised_until THEN (account).raised_by ELSE 0 END,
            9007199254740991
        )
    END
$$;

-- The default [scope, window, limit, model, unit, carry_over] that an account without a limit of its own follows, else NULL.
CREATE FUNCTION ledger.default_of_v1(account ledger.accounts, defaults jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT d FROM jsonb_array_elements(defaults) d
    WHERE NOT (account).pinned AND d->>0 = (account).scope AND d->>1 = (account).period AND d->>3 = (account).model
        AND d->>4 = (account).unit
    LIMIT 1
$$;

-- One account by its key; a row of NULLs if it is not there.
CREATE FUNCTION ledger.account_v1(owner text, leg jsonb) RETURNS ledger.accounts
LANGUAGE sql STABLE AS $$
    SELECT a FROM ledger.accounts a
    WHERE project = owner AND scope = leg->>0 AND subject = leg->>1 AND model = leg->>2 AND period = leg->>3
        AND unit = leg->>4
$$;

-- What is carried over into a window that begins at `starts` (core/accounts.py begin_window).
CREATE FUNCTION ledger.carried_v1(account ledger.accounts, starts bigint, default_ jsonb) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    own bigint := CASE WHEN account.pinned THEN account.own_limit ELSE (default_->>2)::bigint END;
    cap bigint := CASE WHEN account.pinned OR default_ IS NULL THEN account.carry_over ELSE (default_->>5)::bigint END;
    carried bigint;
BEGIN
    IF own IS NULL THEN
        RETURN 0;
    END IF;
    carried := least(cap, greatest(0, own + account.carried - account.spent));
    -- Nothing was spent in the windows that went by in between.
    IF starts > account.ends_at THEN
        carried := least(cap, own + carried);
    END IF;
    RETURN carried;
END
$$;

-- The account with an open window, made or rolled if need be; a row of NULLs if that takes a roll that is not there. `row_id` is
-- the id of a row that is made. A roll is a compare-and-set on the recorded end.
CREATE FUNCTION ledger.open_window_v1(owner text, leg jsonb, default_ jsonb, rolls jsonb, row_id text, now bigint)
RETURNS ledger.accounts
LANGUAGE plpgsql AS $$
DECLARE
    account ledger.accounts := ledger.account_v1(owner, leg);
    old_end bigint;
    starts bigint;
    ends bigint;
BEGIN
    -- The last roll of an account counts.
    SELECT (r->>1)::bigint, (r->>2)::bigint, (r->>3)::bigint INTO old_end, starts, ends
    FROM jsonb_array_elements(rolls) WITH ORDINALITY AS each (r, place) WHERE r->0 = leg ORDER BY place DESC LIMIT 1;
    IF starts > now OR now >= ends THEN
        starts := NULL;
    END IF;
    IF account.id IS NULL THEN
        IF leg->>3 = 'none' THEN
            starts := now;
            ends := NULL;
        ELSIF starts IS NULL OR old_end IS NOT NULL THEN
            RETURN NULL;
        END IF;
        INSERT INTO ledger.accounts (project, scope, subject, model, period, unit, id, created_at, starts_at, ends_at)
        VALUES (owner, leg->>0, leg->>1, leg->>2, leg->>3, leg->>4, row_id, now, starts, ends) RETURNING * INTO account;
    ELSIF account.ends_at <= now THEN
        IF starts IS NULL OR old_end IS DISTINCT FROM account.ends_at THEN
            RETURN NULL;
        END IF;
        UPDATE ledger.accounts SET
            carried = ledger.carried_v1(account, starts, default_), starts_at = starts, ends_at = ends, spent = 0,
            models = '{}', alerted = 0, epoch = epoch + 1, dropped = false
        WHERE project = owner AND scope = leg->>0 AND subject = leg->>1 AND model = leg->>2 AND period = leg->>3
            AND unit = leg->>4
        RETURNING * INTO account;
    END IF;
    RETURN account;
END
$$;

-- Undo everything that the command has done, and give this reply: caught by the block around the rules.
CREATE FUNCTION ledger.undo_v1(reply jsonb) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'LB002', MESSAGE = 'nothing was changed', DETAIL = reply;
END
$$;

-- What the caller must know to compute a window's bounds.
CREATE FUNCTION ledger.roll_due_v1(owner text, leg jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    account ledger.accounts := ledger.account_v1(owner, leg);
BEGIN
    RETURN jsonb_build_array(leg, account.starts_at, account.ends_at);
END
$$;

-- The accounts that apply, in the order of their keys, with open windows: [ref, limit of the default that it follows]. `subjects`
-- are [scope, id, {key: default}, how many defaults] with each default that can apply, [model, window, unit, limit, carry_over], under
-- "unit window model"; `legs` are those of the hold that is settled.
-- `stem` begins the ids of rows that are made. Undoes the command if windows are new or over despite `rolls`.
CREATE FUNCTION ledger.applying_v1(
    owner text, subjects jsonb, models jsonb, rolls jsonb, legs jsonb, stem text, now bigint
) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    found jsonb := '[]';
    due jsonb := '[]';
    made integer := 0;
    named record;
    is_new boolean;
    account ledger.accounts;
BEGIN
    FOR named IN
        WITH subject AS (
            SELECT s->>0 AS scope, s->>1 AS id, s->2 AS defaults FROM jsonb_array_elements(subjects) s
        ), existing AS (
            SELECT a.* FROM subject s JOIN ledger.accounts a ON a.project = owner AND a.scope = s.scope AND a.subject = s.id
        ), candidate AS (
            SELECT e.scope, e.subject, e.model, e.period, e.unit, NULL::jsonb AS default_
            FROM existing e WHERE (e.pinned OR e.blocked) AND (e.model = '' OR applying_v1.models ? e.model)
            UNION ALL
            SELECT s.scope, s.id, d->>0, d->>1, d->>2, d
            FROM subject s, jsonb_each(s.defaults) AS each (key, d)
            WHERE NOT EXISTS (
                SELECT FROM existing e
                WHERE e.pinned AND e.scope = s.scope AND e.subject = s.id AND e.model = d->>0 AND e.unit = d->>2
            )
            UNION ALL
            SELECT e.scope, e.subject, e.model, e.period, e.unit, NULL
            FROM existing e
            WHERE jsonb_build_array(e.scope, e.subject, e.model, e.period, e.unit) IN (SELECT jsonb_array_elements(legs))
                AND NOT e.dropped
                AND NOT EXISTS (
                    SELECT FROM existing o
                    WHERE o.pinned AND o.scope = e.scope AND o.subject = e.subject AND o.model = e.model AND o.unit = e.unit
                )
        )
        SELECT jsonb_build_array(scope, subject, model, period, unit) AS leg, min(default_::text)::jsonb AS default_
        FROM candidate GROUP BY scope, subject, model, period, unit
        ORDER BY scope COLLATE "C", subject COLLATE "C", model COLLATE "C", period COLLATE "C", unit COLLATE "C"
    LOOP
        is_new := (ledger.account_v1(owner, named.leg)).id IS NULL;
        account := ledger.open_window_v1(
            owner, named.leg,
            CASE WHEN named.default_ IS NOT NULL THEN
                jsonb_build_array('', '', named.default_->3, '', '', named.default_->4)
            END,
            rolls, stem || (made + 1), now
        );
        IF account.id IS NULL THEN
            due := due || jsonb_build_array(ledger.roll_due_v1(owner, named.leg));
        ELSE
            made := made + is_new::integer;
            found := found || jsonb_build_array(jsonb_build_array(named.leg, named.default_->3));
        END IF;
    END LOOP;
    IF due <> '[]' THEN
        PERFORM ledger.undo_v1(jsonb_build_object('type', 'RollNeeded', 'now', now, 'due', due));
    END IF;
    RETURN found;
END
$$;
